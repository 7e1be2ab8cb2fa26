"""Paths of the fields of specs."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith_api.spec_fields import values_at


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a", [{"b": 1}]),
        ("a.b", [1]),
        ("a.c", []),
        ("l[].x", [1, 2]),
        ("l[].y.z", [3]),
        ("absent[].x", []),
        ("null.x", []),
    ],
)
def test_a_path_finds_each_value_there_is(path: str, found: list[Any]) -> None:
    assert list(values_at({"a": {"b": 1}, "l": [{"x": 1}, {"x": 2, "y": {"z": 3}}], "null": None}, path)) == found
