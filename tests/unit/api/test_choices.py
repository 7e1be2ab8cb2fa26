"""A row of the tables matches the specs that have its values."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tunesmith_api.choices import ANY, Choice


def test_a_row_for_any_value_matches_a_field_that_is_set() -> None:
    row = Choice("lora.plusRatio", ANY, excludes={"tuner": ("vera",)}, reason="why")
    assert row.matches({"tuner": "vera", "lora": {"plusRatio": 2}})
    assert not row.matches({"tuner": "vera", "lora": {}})
    assert not row.matches({"tuner": "lora", "lora": {"plusRatio": 2}})
    assert row.refusal().message == "lora.plusRatio with tuner vera: why"


PATHS = ("method", "datasets[].format", "export.quantize.method", "training.lossOn", "lora.useRslora")


@given(st.sampled_from(PATHS), st.sampled_from(PATHS), st.data())
def test_an_absent_field_matches_no_combination(first: str, second: str, data: st.DataObject) -> None:
    """Two present fields match exactly if both have a listed value."""
    values = {path: data.draw(st.sampled_from(["a", "b", None])) for path in {first, second}}
    spec: dict[str, Any] = {}
    for path, value in values.items():
        if value is not None:
            put(spec, path.split("."), value)
    choice = Choice(first, ("a",), excludes={second: ("a",)})
    assert choice.matches(spec) is (set(values.values()) == {"a"})


def put(spec: dict[str, Any], path: list[str], value: str) -> None:
    """Write `value` at a path; a new list gets a single item."""
    *parents, leaf = path
    for part in parents:
        below = spec.setdefault(part.removesuffix("[]"), [{}] if part.endswith("[]") else {})
        spec = below[0] if isinstance(below, list) else below
    spec[leaf] = value
