"""Preference rows: prompt and answers part between messages only, and no answer is empty."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith_api.datasets import RowFormat
from tunesmith_runtime.data import formats
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.formats import FORMATS
from tunesmith_runtime.data.records import Continuation, Conversation, Preference, Record
from tunesmith_runtime.data.row_error import RowError

ASKED = {"role": "user", "content": "2 + 2?"}
RIGHT, WRONG = {"role": "assistant", "content": "4"}, {"role": "assistant", "content": "5"}
PAIR = Preference(Conversation([ASKED, RIGHT], learn_from=1), Conversation([ASKED, WRONG], learn_from=1))


def read(row: dict[str, Any]) -> Record | DropReason:
    assert formats.detect(row, {Preference}).name == RowFormat.PREFERENCE
    return formats.read(row, FORMATS[RowFormat.PREFERENCE])


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [ASKED], "chosen": [RIGHT], "rejected": [WRONG]},
        {"prompt": [ASKED], "chosen": [ASKED, RIGHT], "rejected": [ASKED, WRONG]},
        {"prompt": "2 + 2?", "chosen": [ASKED, RIGHT], "rejected": [ASKED, WRONG]},
        {"chosen": [ASKED, RIGHT], "rejected": [ASKED, WRONG]},
        {"messages": [ASKED], "chosen": RIGHT, "rejected": WRONG},
        {"messages": [ASKED, RIGHT], "rejected_response": "5"},
        {"messages": [ASKED, RIGHT], "rejected_response": [WRONG]},
        {"messages": [ASKED, RIGHT], "rejected_messages": [ASKED, WRONG]},
        {"query": "2 + 2?", "response": "4", "rejected_response": "5"},
        {"instruction": "2 + 2?", "input": "", "chosen": "4", "rejected": "5"},
        {
            "conversations": [{"from": "human", "value": "2 + 2?"}],
            "chosen": {"from": "gpt", "value": "4"},
            "rejected": {"from": "gpt", "value": "5"},
        },
    ],
)
def test_every_spelling_gives_the_same_pair(row: dict[str, Any]) -> None:
    assert read(row) == PAIR
    assert formats.ignored(row, FORMATS[RowFormat.PREFERENCE]) == set()


def test_texts_stay_plain_text() -> None:
    row = {"prompt": "2 + 2 =", "chosen": " 4", "rejected": " 5", "margin": 0.5}
    assert read(row) == Preference(Continuation("2 + 2 =", " 4"), Continuation("2 + 2 =", " 5"), 0.5)


def test_texts_without_a_prompt_are_whole_answers() -> None:
    """Not the answers `d` and `d, I think` to the prompt `Re`."""
    row = {"chosen": "Red", "rejected": "Red, I think"}
    assert read(row) == Preference(Continuation("", "Red"), Continuation("", "Red, I think"))


def test_the_prompt_of_lists_is_their_equal_turns() -> None:
    more = {"role": "user", "content": "And 3 + 3?"}
    six, seven = {"role": "assistant", "content": "6"}, {"role": "assistant", "content": "7"}
    record = read({"chosen": [ASKED, RIGHT, more, six], "rejected": [ASKED, RIGHT, more, seven]})
    assert isinstance(record, Preference)
    assert isinstance(record.chosen, Conversation)
    assert record.chosen.learned == [3]


def test_a_system_prompt_is_a_part_of_both() -> None:
    system = {"role": "system", "content": "Be brief."}
    for row in (
        {"messages": [ASKED, RIGHT], "rejected_messages": [ASKED, WRONG], "system": "Be brief."},
        {"messages": [ASKED], "chosen": "4", "rejected": "5", "system": "Be brief."},
        {"chosen": [ASKED, RIGHT], "rejected": [ASKED, WRONG], "system": "Be brief."},
    ):
        assert read(row) == Preference(
            Conversation([system, ASKED, RIGHT], learn_from=2), Conversation([system, ASKED, WRONG], learn_from=2)
        )


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"chosen": [ASKED, RIGHT], "rejected": [ASKED, RIGHT, ASKED, WRONG]}, "'chosen' has no answer"),
        ({"chosen": [ASKED, RIGHT], "rejected": [ASKED]}, "'rejected' has no answer"),
        ({"chosen": [ASKED, RIGHT], "rejected": [{**ASKED, "content": "3?"}, WRONG]}, "has a message of role user"),
        ({"chosen": "4", "rejected": [WRONG]}, "'chosen' is a string and 'rejected' is a list; expected two"),
        ({"chosen": 4, "rejected": 5}, "'chosen' is a number; expected a list"),
        ({"prompt": "3?", "chosen": [ASKED, RIGHT], "rejected": [ASKED, WRONG]}, "'prompt' is a string that is no"),
        ({"prompt": "2", "completion": "4", "rejected_response": [WRONG]}, "'rejected_response' is a list"),
        ({"chosen": "a", "rejected": "b", "margin": "large"}, "'margin' is a string; expected a number"),
        ({"chosen": [ASKED, {**RIGHT, "weight": 0}], "rejected": [ASKED, WRONG]}, "ends with a message of weight 0"),
        ({"chosen": "a", "rejected": "b", "images": ["a.png"]}, "has media beside a prompt of plain text"),
    ],
)
def test_what_is_no_pair_is_refused(row: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RowError, match=sentence):
        read(row)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen": "a", "rejected": "a"}, DropReason.EQUAL_ANSWERS),
        ({"chosen": [ASKED, RIGHT], "rejected": [ASKED, RIGHT]}, DropReason.EQUAL_ANSWERS),
        ({"messages": [ASKED, RIGHT], "rejected_response": "4"}, DropReason.EQUAL_ANSWERS),
        ({"prompt": "2", "chosen": "a", "rejected": " "}, DropReason.EMPTY_ANSWER),
        ({"messages": [ASKED, RIGHT], "rejected_response": "\n"}, DropReason.EMPTY_ANSWER),
        ({"messages": [ASKED], "rejected_response": "5"}, DropReason.NO_ANSWER),
        ({"chosen": [RIGHT], "rejected": [WRONG]}, DropReason.NO_PROMPT),
    ],
)
def test_a_pair_without_a_difference_or_an_answer_is_dropped(row: dict[str, Any], reason: DropReason) -> None:
    assert read(row) is reason


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [ASKED, {**RIGHT, "loss_scale": 0.5}], "rejected_response": WRONG["content"]},
        {"prompt": [ASKED], "chosen": [{**RIGHT, "loss_scale": 0.5}], "rejected": [WRONG]},
        {"messages": [ASKED, RIGHT], "rejected_messages": [ASKED, {**WRONG, "loss_scale": 0.5}]},
    ],
)
def test_a_weight_other_than_0_and_1_is_refused(row: dict[str, Any]) -> None:
    with pytest.raises(RowError, match="has a message of a weight other than 0 and 1, which only answers to learn"):
        read(row)
