"""Preferences and feedback: each answer is encoded as it is in a conversation of its own."""

from __future__ import annotations

from typing import Any

import pytest

from tests import tinymodel
from tests.unit.runtime.data.families import QWEN3
from tunesmith_api.training import Truncation
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.encode import Encoder
from tunesmith_runtime.data.examples import IGNORED, Example
from tunesmith_runtime.data.formats import FORMATS, read
from tunesmith_runtime.data.pairs import Pairs
from tunesmith_runtime.data.records import Continuation, Conversation, Feedback, Preference
from tunesmith_runtime.data.row_error import RowError


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tinymodel.make_tokenizer()


def encoder(tokenizer: Any, template: str = tinymodel.CHAT_TEMPLATE) -> Encoder:
    tokenizer.chat_template = template
    return Encoder(tokenizer, frozenset([tokenizer.eos_token_id]), 4096)


def preference(row: dict[str, Any]) -> Preference:
    record = read(row, FORMATS["preference"])
    assert isinstance(record, Preference)
    return record


def answer_of(example: Example, tokenizer: Any) -> str:
    return str(tokenizer.decode([label for label in example.labels if label != IGNORED]))


def test_each_answer_of_a_preference_is_an_example_with_the_margin(tokenizer: Any) -> None:
    record = preference({"prompt": "What is tin? ", "chosen": "metal", "rejected": "fruit", "margin": 2})
    chosen, rejected = encoder(tokenizer).encode(record)
    assert (answer_of(chosen, tokenizer), answer_of(rejected, tokenizer)) == ("metal<|im_end|>", "fruit<|im_end|>")
    assert (chosen.value, rejected.value) == (2, 2)
    [alone] = encoder(tokenizer).encode(Continuation("What is tin? ", "metal"))
    assert (alone.input_ids, alone.labels) == (chosen.input_ids, chosen.labels)


def test_what_both_answers_begin_with_is_not_learned(tokenizer: Any) -> None:
    shared = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "tin?"},
    ]
    answers = ([{"role": "assistant", "content": text}] for text in ("metal", "fruit"))
    chosen, rejected = encoder(tokenizer).encode(
        preference({"prompt": shared, **dict(zip(("chosen", "rejected"), answers, strict=True))})
    )
    assert (answer_of(chosen, tokenizer), answer_of(rejected, tokenizer)) == ("metal<|im_end|>", "fruit<|im_end|>")


def test_answers_that_the_template_makes_equal_are_dropped(tokenizer: Any) -> None:
    trims = tinymodel.CHAT_TEMPLATE.replace("message['content']", "message['content'] | trim")
    row = {"prompt": [{"role": "user", "content": "tin?"}]}
    answers = {
        key: [{"role": "assistant", "content": text}] for key, text in (("chosen", "metal"), ("rejected", "metal "))
    }
    assert encoder(tokenizer, trims).encode(preference(row | answers)) is DropReason.EQUAL_ANSWERS


def test_an_answer_that_the_template_rewrites_is_refused_with_the_way_out(tokenizer: Any) -> None:
    thought = {"role": "assistant", "content": "<think>hm</think>a"}
    messages = [thought, {"role": "user", "content": "and?"}, {"role": "assistant", "content": "b"}]
    row = {"prompt": [{"role": "user", "content": "tin?"}], "chosen": messages, "rejected": [*messages[:2], thought]}
    record = Preference(*(Conversation([*row["prompt"], *row[key]], learn_from=1) for key in ("chosen", "rejected")))
    with pytest.raises(RowError, match="rewrites the earlier ones"):
        encoder(tokenizer, QWEN3).encode(record)


def test_feedback_has_its_label_as_value(tokenizer: Any) -> None:
    for is_good in (True, False):
        [example] = encoder(tokenizer).encode(Feedback(Continuation("tin? ", "metal"), is_good))
        assert example.value == is_good


def test_pairs_are_the_examples_two_by_two() -> None:
    from datasets import Dataset

    pairs = Pairs(
        Dataset.from_dict({"input_ids": [[1], [1, 2], [3, 4, 5], [3]], "labels": [[1], [1, 2], [3, 4, 5], [3]]})
    )
    assert len(pairs) == 2
    assert pairs[1] == {"input_ids": [[3, 4, 5], [3]], "labels": [[3, 4, 5], [3]]}
    assert list(pairs.lengths) == [2, 3]


def test_answers_of_other_lengths_are_cut_each_by_itself_or_dropped_together(tokenizer: Any) -> None:
    words = " ".join(["fruit"] * 60)
    record = preference({"prompt": "tin? ", "chosen": words, "rejected": "metal"})
    tokenizer.chat_template = tinymodel.CHAT_TEMPLATE
    dropping, cutting = (
        Encoder(tokenizer, frozenset(), 32, truncation) for truncation in (Truncation.DROP, Truncation.TRUNCATE)
    )
    assert dropping.encode(record) is DropReason.TOO_LONG
    chosen, rejected = cutting.encode(record)
    assert len(chosen.input_ids) == 32
    [alone] = cutting.encode(Continuation("tin? ", "metal"))
    assert rejected.input_ids == alone.input_ids
