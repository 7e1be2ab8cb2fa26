"""Rows of the methods to come: feedback, prompts for rewards, classes, embeddings."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith_api.datasets import RowFormat
from tunesmith_runtime.data import formats
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.formats import FORMATS
from tunesmith_runtime.data.records import (
    Continuation,
    Contrast,
    Conversation,
    Feedback,
    Labelled,
    Pair,
    PlainText,
    Prompt,
    Record,
)
from tunesmith_runtime.data.row_error import RowError

ASKED = {"role": "user", "content": "2 + 2?"}
ANSWER = {"role": "assistant", "content": "4"}
TURN = Conversation([ASKED, ANSWER], learn_from=1)


def turn(text: str, role: str = "user") -> list[dict[str, Any]]:
    """A text as a list of one message."""
    return [{"role": role, "content": text}]


def read(row: dict[str, Any], name: RowFormat) -> Record | DropReason:
    records = FORMATS[name].records
    assert formats.detect(row, records).name == name
    return formats.read(row, FORMATS[name])


@pytest.mark.parametrize(
    ("row", "record"),
    [
        ({"messages": [ASKED, ANSWER], "label": True}, Feedback(TURN, True)),
        ({"messages": [ASKED, ANSWER], "label": False}, Feedback(TURN, False)),
        ({"instruction": "2 + 2?", "output": "4", "kto_tag": False}, Feedback(TURN, False)),
        ({"query": "2 + 2?", "response": "4", "label": "true"}, Feedback(TURN, True)),
        ({"prompt": "2 + 2 =", "completion": " 4", "label": 0}, Feedback(Continuation("2 + 2 =", " 4"), False)),
    ],
)
def test_feedback_is_an_answer_with_its_verdict(row: dict[str, Any], record: Feedback) -> None:
    assert read(row, RowFormat.FEEDBACK) == record


def test_of_several_answers_the_last_has_the_verdict() -> None:
    record = read({"messages": [ASKED, ANSWER, ASKED, ANSWER], "label": True}, RowFormat.FEEDBACK)
    assert isinstance(record, Feedback)
    assert isinstance(record.answer, Conversation)
    assert record.answer.learned == [3]


@pytest.mark.parametrize("label", [2, "good", 0.5, [True]])
def test_a_verdict_is_true_or_false(label: Any) -> None:
    with pytest.raises(RowError, match=r"'label' is .*; expected true or false"):
        formats.read({"messages": [ASKED, ANSWER], "label": label}, FORMATS[RowFormat.FEEDBACK])


def test_a_row_with_a_label_is_refused_by_a_format_that_does_not_read_it() -> None:
    for key in ("label", "kto_tag"):
        with pytest.raises(RowError, match=f"has '{key}'"):
            formats.read({"messages": [ASKED, ANSWER], key: False}, FORMATS[RowFormat.MESSAGES])


@pytest.mark.parametrize(
    ("row", "record"),
    [
        ({"prompt": "2 + 2 =", "answer": "4"}, Prompt("2 + 2 =", columns={"answer": "4"})),
        ({"prompt": [ASKED], "solution": "4", "level": 3}, Prompt([ASKED], columns={"solution": "4", "level": 3})),
        ({"messages": [ASKED, ANSWER]}, Prompt([ASKED])),
        ({"question": "2 + 2?", "answer": "4"}, Prompt([ASKED], columns={"answer": "4"})),
        ({"query": "2 + 2?", "label": True, "weight": 3}, Prompt([ASKED], columns={"label": True, "weight": 3})),
        ({"prompt": "2 + 2 =", "question": "sum"}, Prompt("2 + 2 =", columns={"question": "sum"})),
    ],
)
def test_a_prompt_keeps_all_other_columns_for_rewards(row: dict[str, Any], record: Prompt) -> None:
    assert read(row, RowFormat.PROMPT) == record
    assert formats.ignored(row, FORMATS[RowFormat.PROMPT]) == set()


@pytest.mark.parametrize("row", [{"prompt": " "}, {"messages": [ANSWER]}, {"prompt": []}])
def test_an_empty_prompt_is_dropped(row: dict[str, Any]) -> None:
    assert read(row, RowFormat.PROMPT) is DropReason.NO_PROMPT


@pytest.mark.parametrize("label", [1, 0, True, "spam", 0.8, [0, 2], [1.2, -0.6], ["a", "b"], []])
def test_a_label_is_a_class_several_classes_or_numbers(label: Any) -> None:
    wanted = tuple(label) if isinstance(label, list) else label
    assert read({"text": "Buy!", "label": label}, RowFormat.CLASSIFICATION) == Labelled("Buy!", wanted)
    assert read({"messages": [ASKED], "label": label}, RowFormat.CLASSIFICATION) == Labelled([ASKED], wanted)


@pytest.mark.parametrize("label", ["", " ", {}, [""], [{}]])
def test_what_is_no_label_is_refused(label: Any) -> None:
    with pytest.raises(RowError, match=r"'label' is .*; expected a class"):
        formats.read({"text": "Buy!", "label": label}, FORMATS[RowFormat.CLASSIFICATION])


@pytest.mark.parametrize(
    ("row", "record"),
    [
        ({"anchor": "a", "positive": "b"}, Pair("a", "b")),
        ({"sentence1": "a", "sentence2": "b", "score": 0.5}, Pair("a", "b", 0.5)),
        ({"anchor": "a", "positive": "b", "negative": "c"}, Contrast("a", ("b",), ("c",))),
        ({"query": "a", "pos": ["b", "c"], "neg": ["d"]}, Contrast("a", ("b", "c"), ("d",))),
        ({"messages": turn("a"), "positive_messages": [turn("b")]}, Pair("a", "b")),
        ({"messages": turn("a"), "positive_messages": [turn("b")], "label": 0.8}, Pair("a", "b", 0.8)),
        (
            {
                "messages": turn("a"),
                "positive_messages": [turn("b", "assistant")],
                "negative_messages": [turn("c"), turn("d")],
            },
            Contrast("a", ("b",), ("c", "d")),
        ),
        (
            {"messages": [{"role": "system", "content": "Find it."}, *turn("a")], "positive_messages": [turn("b")]},
            Pair("Find it. a", "b"),
        ),
    ],
)
def test_pairs_and_triplets_are_read(row: dict[str, Any], record: Record) -> None:
    assert read(row, RowFormat.EMBEDDING) == record


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"anchor": "a", "positive": 5}, "'positive' is a number"),
        ({"anchor": ["a", "b"], "positive": "c"}, "'anchor' is a list"),
        ({"query": "a", "pos": []}, "'pos' is an empty list"),
        ({"anchor": "a", "positive": "b", "negative": "c", "score": 1}, "has a score"),
        ({"sentence1": "a", "sentence2": "b", "score": "high"}, "'score' is a string"),
        (
            {"messages": turn("a"), "positive_messages": turn("b")},
            r"positive_messages\[0\] is a message; expected a list",
        ),
        (
            {"messages": turn("a"), "positive_messages": "b"},
            "'positive_messages' is a string; expected a list of lists",
        ),
        (
            {"messages": turn("a") * 2, "positive_messages": [turn("b")]},
            "messages has messages of the roles user, user",
        ),
        ({"messages": turn("a"), "positive_messages": [[]]}, r"positive_messages\[0\] has messages of the roles none"),
    ],
)
def test_what_is_no_pair_of_texts_is_refused(row: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RowError, match=sentence):
        read(row, RowFormat.EMBEDDING)
    assert read({"anchor": "a", "positive": " "}, RowFormat.EMBEDDING) is DropReason.EMPTY_ANSWER


@pytest.mark.parametrize("row", [{"text": "2 + 2 = 4"}, {"messages": turn("2 + 2 = 4", "assistant")}])
def test_text_is_also_the_only_message_of_a_row(row: dict[str, Any]) -> None:
    assert read(row, RowFormat.TEXT) == PlainText("2 + 2 = 4")
    assert formats.ignored(row, FORMATS[RowFormat.TEXT]) == set()


def test_a_message_of_weight_0_or_without_text_is_not_pretrained_on() -> None:
    message = turn("4", "assistant")[0]
    assert read({"messages": [{**message, "loss": False}]}, RowFormat.TEXT) is DropReason.NOT_LEARNED
    assert read({"messages": turn(" ", "assistant")}, RowFormat.TEXT) is DropReason.EMPTY_ANSWER


@pytest.mark.parametrize("messages", [[ASKED, ANSWER], [ASKED], [], [ANSWER, ANSWER], [{**ANSWER, "reasoning": "2"}]])
def test_a_conversation_is_no_text(messages: list[dict[str, Any]]) -> None:
    with pytest.raises(RowError, match="expected one of role assistant with content alone") as refused:
        read({"messages": messages}, RowFormat.TEXT)
    assert "format: messages and method sft" in str(refused.value.hint)
