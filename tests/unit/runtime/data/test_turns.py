"""The token that ends a turn, by the chat template."""

from __future__ import annotations

from typing import Any

import pytest

from tests import tinymodel
from tests.unit.runtime.data.families import BREAKS
from tunesmith_runtime.data.turns import end_of_turn


@pytest.fixture
def tokenizer() -> Any:
    return tinymodel.make_tokenizer()


def test_the_token_behind_an_answer_ends_a_turn(tokenizer: Any) -> None:
    assert end_of_turn(tokenizer) == tokenizer.convert_tokens_to_ids("<|im_end|>")


@pytest.mark.parametrize(
    "template", [None, BREAKS, "{{ raise_exception('no') }}", "{{ messages[0].content | length + 'a' }}", "{% for"]
)
def test_a_template_that_fails_on_a_sample_gives_no_token(tokenizer: Any, template: str | None) -> None:
    tokenizer.chat_template = template
    assert end_of_turn(tokenizer) is None
