"""The names that are proposed for an unknown one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_api.catalogue.builtin import datasets, models
from tunesmith_api.catalogue.nearest import nearest


@pytest.mark.parametrize(
    ("unknown", "first"),
    [
        ("qwen3-8bb", "qwen3-8b"),
        ("qwen-3-8b", "qwen3-8b"),
        ("Qwen/Qwen3-8B", "qwen3-8b"),
        ("qwen3-8b-chat", "qwen3-8b"),
        ("llama3.1-8b-instruct", "llama-3.1-8b-instruct"),
        ("Qwen2_5-7B-instruct", "qwen2.5-7b-instruct"),
        ("flux-dev", "flux.1-dev"),
        ("sd15", "sd-1.5"),
    ],
)
def test_a_misspelled_model_is_the_first_proposal(unknown: str, first: str) -> None:
    assert nearest(unknown, models())[0] == first


def test_an_underscore_is_a_hyphen() -> None:
    assert nearest("alpaca_zh", datasets())[0] == "alpaca-zh"
    assert nearest("my-rows", [*datasets(), "my_rows"])[0] == "my_rows"


@given(st.text(max_size=300))
def test_any_text_has_three_names_that_exist(unknown: str) -> None:
    found = nearest(unknown, datasets())
    assert len(set(found)) == 3
    assert set(found) <= set(datasets())
