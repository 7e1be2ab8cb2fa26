"""Row formats: what they read, what they drop, and what they say of a row that is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith_api.finetunejob import RowFormat
from tunesmith_runtime.data.formats import FORMATS, detect, rename
from tunesmith_runtime.data.records import Continuation, Conversation, DropReason, RowError

USER = {"role": "user", "content": "2 + 2?"}
ASSISTANT = {"role": "assistant", "content": "4"}


@pytest.mark.parametrize(
    ("row", "form"),
    [
        ({"messages": [USER, ASSISTANT]}, RowFormat.MESSAGES),
        ({"prompt": "2 + 2 =", "completion": " 4"}, RowFormat.PROMPT_COMPLETION),
        ({"instruction": "Add.", "input": "2 2", "output": "4"}, RowFormat.ALPACA),
        ({"text": "2 + 2 = 4"}, RowFormat.TEXT),
        ({"messages": [USER, ASSISTANT], "text": "also here"}, RowFormat.MESSAGES),
    ],
)
def test_the_format_is_told_from_the_keys_of_a_row(row: dict[str, Any], form: RowFormat) -> None:
    assert detect(row) is form
    assert not isinstance(FORMATS[form].read(row), DropReason)


def test_an_unknown_format_is_refused_with_what_is_there_and_what_is_expected() -> None:
    with pytest.raises(RowError, match=r"keys are question, answer; expected .*prompt") as wrong:
        detect({"question": "2 + 2?", "answer": "4"})
    assert wrong.value.hint == "rename keys with datasets[].columns: {question: instruction, answer: output}"


def test_columns_are_renamed_before_the_format_is_told() -> None:
    row = rename({"question": "2 + 2?", "answer": "4", "id": 7}, {"question": "prompt", "answer": "completion"})
    assert row == {"id": 7, "prompt": "2 + 2?", "completion": "4"}
    assert detect(row) is RowFormat.PROMPT_COMPLETION


def test_a_column_that_is_renamed_and_missing_is_named() -> None:
    with pytest.raises(RowError, match=r"has no 'frage'.*keys are text"):
        rename({"text": "…"}, {"frage": "prompt"})


def test_alpaca_is_a_conversation_of_one_turn() -> None:
    record = FORMATS[RowFormat.ALPACA].read(
        {"instruction": "Add.", "input": "2 2", "output": "4", "system": "Be brief."}
    )
    assert record == Conversation(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Add.\n2 2"}, ASSISTANT]
    )
    assert FORMATS[RowFormat.ALPACA].read({"instruction": "Add.", "output": "4", "input": None}) == Conversation(
        [{"role": "user", "content": "Add."}, ASSISTANT]
    )


def test_plain_prompt_and_completion_stay_plain_text() -> None:
    row = {"prompt": "2 + 2 =", "completion": " 4"}
    assert FORMATS[RowFormat.PROMPT_COMPLETION].read(row) == Continuation("2 + 2 =", " 4")


def test_of_a_conversation_as_prompt_only_the_completion_is_learned() -> None:
    row = {"prompt": [USER, ASSISTANT, USER], "completion": [ASSISTANT]}
    record = FORMATS[RowFormat.PROMPT_COMPLETION].read(row)
    assert isinstance(record, Conversation)
    assert record.learn_from == 3


def test_what_follows_the_last_answer_is_left_out() -> None:
    record = FORMATS[RowFormat.MESSAGES].read({"messages": [USER, ASSISTANT, USER]})
    assert record == Conversation([USER, ASSISTANT])


def test_parts_of_text_are_joined() -> None:
    parts = [{"type": "text", "text": "2 + "}, {"type": "text", "text": "2?"}]
    record = FORMATS[RowFormat.MESSAGES].read({"messages": [{"role": "user", "content": parts}, ASSISTANT]})
    assert record == Conversation([USER, ASSISTANT])


@pytest.mark.parametrize(
    ("form", "row", "reason"),
    [
        (RowFormat.MESSAGES, {"messages": [USER, {"role": "assistant", "content": " "}]}, DropReason.EMPTY_ANSWER),
        (RowFormat.MESSAGES, {"messages": [USER]}, DropReason.NO_ANSWER),
        (RowFormat.MESSAGES, {"messages": []}, DropReason.NO_ANSWER),
        (RowFormat.PROMPT_COMPLETION, {"prompt": "2", "completion": ""}, DropReason.EMPTY_ANSWER),
        (RowFormat.ALPACA, {"instruction": "Add.", "output": "\n"}, DropReason.EMPTY_ANSWER),
        (RowFormat.TEXT, {"text": ""}, DropReason.EMPTY_ANSWER),
    ],
)
def test_a_row_with_nothing_to_learn_is_dropped_for_a_reason(
    form: RowFormat, row: dict[str, Any], reason: DropReason
) -> None:
    assert FORMATS[form].read(row) is reason


@pytest.mark.parametrize(
    ("form", "row", "sentence"),
    [
        (RowFormat.MESSAGES, {"text": "…"}, r"has no 'messages'; its keys are text"),
        (RowFormat.MESSAGES, {"messages": "hello"}, r"'messages' is a string; expected a list"),
        (RowFormat.MESSAGES, {"messages": [USER, "4"]}, r"messages\[1\] is a string; expected \{role, content\}"),
        (
            RowFormat.MESSAGES,
            {"messages": [{"role": "bot", "content": "4"}]},
            r"messages\[0\] has role 'bot'; expected one of assistant",
        ),
        (RowFormat.MESSAGES, {"messages": [{"role": "user"}]}, r"messages\[0\]\.content is missing"),
        (
            RowFormat.MESSAGES,
            {"messages": [{"role": "user", "content": 4}]},
            r"messages\[0\]\.content is a number; expected a string",
        ),
        (
            RowFormat.MESSAGES,
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
            r"only text can be learned",
        ),
        (RowFormat.MESSAGES, {"messages": [USER, ASSISTANT], "tools": "{}"}, r"'tools' is a string"),
        (RowFormat.PROMPT_COMPLETION, {"prompt": "2"}, r"has no 'completion'; its keys are prompt"),
        (RowFormat.PROMPT_COMPLETION, {"prompt": "2", "completion": 4}, r"'completion' is a number; expected a string"),
        (RowFormat.PROMPT_COMPLETION, {"prompt": [USER], "completion": [USER]}, r"not one message of role assistant"),
        (RowFormat.ALPACA, {"instruction": ["Add."], "output": "4"}, r"'instruction' is a list; expected a string"),
        (RowFormat.TEXT, {"text": None}, r"'text' is null; expected a string"),
    ],
)
def test_a_row_that_is_wrong_is_refused_with_what_is_expected(
    form: RowFormat, row: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(RowError, match=sentence):
        FORMATS[form].read(row)
