"""Row formats: the rows that each reads, drops and refuses, and the message of a refusal."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from tunesmith_api.datasets import RowFormat
from tunesmith_runtime.data import formats
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.encoders import ENCODERS
from tunesmith_runtime.data.formats import FORMATS, REFUSED, SIMILAR, rename, yielding
from tunesmith_runtime.data.records import Continuation, Conversation, PlainText, Record
from tunesmith_runtime.data.row_error import RowError

TEXTS: frozenset[type[Record]] = frozenset({Conversation, Continuation, PlainText})
"""The records of text with an answer or without."""

USER = {"role": "user", "content": "2 + 2?"}
ASSISTANT = {"role": "assistant", "content": "4"}


def detect(row: dict[str, Any]) -> RowFormat:
    """The format of a row for a method that learns from texts."""
    return RowFormat(formats.detect(row, TEXTS).name)


def read(row: dict[str, Any], name: RowFormat) -> Record | DropReason:
    return formats.read(row, FORMATS[name])


def ignored(row: dict[str, Any], name: RowFormat) -> set[str]:
    return formats.ignored(row, FORMATS[name])


@pytest.mark.parametrize(
    ("row", "form"),
    [
        ({"messages": [USER, ASSISTANT]}, RowFormat.MESSAGES),
        ({"prompt": "2 + 2 =", "completion": " 4"}, RowFormat.PROMPT_COMPLETION),
        ({"instruction": "Add.", "input": "2 2", "output": "4"}, RowFormat.ALPACA),
        ({"text": "2 + 2 = 4"}, RowFormat.TEXT),
        ({"messages": [USER, ASSISTANT], "text": "also here"}, RowFormat.MESSAGES),
        ({"conversation": [{"human": "2 + 2?", "assistant": "4"}]}, RowFormat.SHAREGPT),
        ({"question": "2 + 2?", "answer": "4"}, RowFormat.QUERY_RESPONSE),
        ({"text": "2 + 2 = 4", "question": "2 + 2?", "answer": "4"}, RowFormat.TEXT),
        ({"text": "2 + 2 = 4", "conversation": [{"human": "2 + 2?", "assistant": "4"}]}, RowFormat.TEXT),
    ],
)
def test_the_format_is_detected_by_the_keys_of_a_row(row: dict[str, Any], form: RowFormat) -> None:
    assert detect(row) is form
    assert not isinstance(FORMATS[form].read(row), DropReason)


def test_an_unknown_format_is_refused_with_what_is_there_and_what_is_expected() -> None:
    with pytest.raises(RowError, match=r"keys are input, output; expected .*prompt") as wrong:
        detect({"input": "2 + 2?", "output": "4"})
    assert wrong.value.hint == "rename keys with datasets[].columns: {input: instruction}"


def test_columns_are_renamed_before_the_format_is_detected() -> None:
    row = rename({"question": "2 + 2?", "answer": "4", "id": 7}, {"question": "prompt", "answer": "completion"})
    assert row == {"id": 7, "prompt": "2 + 2?", "completion": "4"}
    assert detect(row) is RowFormat.PROMPT_COMPLETION


def test_a_column_that_is_renamed_and_missing_is_named() -> None:
    with pytest.raises(RowError, match=r"has no 'frage'.*keys are text"):
        rename({"text": "…"}, {"frage": "prompt"})


def test_two_columns_are_not_renamed_to_one_name() -> None:
    with pytest.raises(RowError, match=r"columns renames more than one column to 'text'"):
        rename({"title": "a", "body": "b"}, {"title": "text", "body": "text"})


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
        (RowFormat.MESSAGES, {"messages": [ASSISTANT]}, DropReason.NO_PROMPT),
        (RowFormat.MESSAGES, {"messages": [USER, {"role": "assistant", "content": None}]}, DropReason.EMPTY_ANSWER),
        (RowFormat.MESSAGES, {"messages": [USER, {**ASSISTANT, "weight": 0}]}, DropReason.NOT_LEARNED),
        (RowFormat.PROMPT_COMPLETION, {"prompt": [], "completion": [ASSISTANT]}, DropReason.NO_PROMPT),
        (
            RowFormat.PROMPT_COMPLETION,
            {"prompt": [USER], "completion": [{**ASSISTANT, "weight": 0}]},
            DropReason.NOT_LEARNED,
        ),
        (RowFormat.SHAREGPT, {"conversations": [{"from": "gpt", "value": "4"}]}, DropReason.NO_PROMPT),
        (RowFormat.SHAREGPT, {"conversations": []}, DropReason.NO_ANSWER),
    ],
)
def test_a_row_with_nothing_to_learn_is_dropped_for_a_reason(
    form: RowFormat, row: dict[str, Any], reason: DropReason
) -> None:
    assert FORMATS[form].read(row) is reason


@pytest.mark.parametrize(
    ("form", "row", "sentence"),
    [
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
        (
            RowFormat.PROMPT_COMPLETION,
            {"prompt": [USER], "completion": [USER]},
            r"not a single message of role assistant",
        ),
        (RowFormat.ALPACA, {"instruction": ["Add."], "output": "4"}, r"'instruction' is a list; expected a string"),
        (RowFormat.TEXT, {"text": None}, r"'text' is null; expected a string"),
    ],
)
def test_a_row_that_is_wrong_is_refused_with_what_is_expected(
    form: RowFormat, row: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(RowError, match=sentence):
        FORMATS[form].read(row)


@pytest.mark.parametrize(
    ("row", "record"),
    [
        ({"messages": [USER, ASSISTANT]}, Conversation),
        ({"prompt": [USER], "completion": [ASSISTANT]}, Conversation),
        ({"prompt": "2 + 2 =", "completion": " 4"}, Continuation),
        ({"instruction": "Add.", "output": "4"}, Conversation),
        ({"conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]}, Conversation),
        ({"query": "2 + 2?", "response": "4"}, Conversation),
        ({"text": "2 + 2 = 4"}, PlainText),
    ],
)
def test_a_format_declares_the_records_that_its_rows_yield(row: dict[str, Any], record: type[Record]) -> None:
    name = detect(row)
    assert type(read(row, name)) is record
    assert record in FORMATS[name].records
    assert name in yielding({record})


def test_every_record_type_has_a_format() -> None:
    records = set(get_args(Record))
    assert set(ENCODERS) <= records
    assert set().union(*(row_format.records for row_format in FORMATS.values())) == records


@pytest.mark.parametrize("key", sorted(REFUSED))
def test_a_key_that_changes_what_is_learned_is_refused_with_what_to_do(key: str) -> None:
    with pytest.raises(RowError, match=f"has '{key}'") as wrong:
        read({"text": "a", key: "something"}, RowFormat.TEXT)
    assert wrong.value.hint
    assert wrong.value.field == key
    assert read({"text": "a", key: None}, RowFormat.TEXT) == PlainText("a")


@pytest.mark.parametrize("key", ["images", "history", "tools", "documents"])
def test_a_key_that_asks_for_nothing_is_absent(key: str) -> None:
    assert read({"text": "a", key: []}, RowFormat.TEXT) == PlainText("a")


def test_a_label_of_good_and_bad_answers_is_refused_and_a_class_is_counted() -> None:
    row = {"prompt": "a", "completion": "b"}
    with pytest.raises(RowError, match="has 'label'"):
        read({**row, "label": False}, RowFormat.PROMPT_COMPLETION)
    assert ignored({**row, "label": 3}, RowFormat.PROMPT_COMPLETION) == {"label"}


@pytest.mark.parametrize(("columns", "kind"), SIMILAR)
def test_the_renaming_that_a_hint_proposes_makes_a_format(columns: dict[str, str], kind: type) -> None:
    row = {
        key: [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}] if kind is list else "a"
        for key in columns
    }
    with pytest.raises(RowError) as wrong:
        detect(row)
    proposed = (wrong.value.hint or "").partition("{")[2].rstrip("}").split(", ")
    renamed = rename(row, dict(pair.split(": ") for pair in proposed))
    assert not isinstance(read(renamed, detect(renamed)), DropReason)


@pytest.mark.parametrize("key", ["segments", "dialog", "dialogue"])
def test_no_renaming_is_proposed_for_a_list_of_something_else(key: str) -> None:
    with pytest.raises(RowError, match="is in no known format") as wrong:
        detect({key: [{"human": "a", "assistant": "b"}]})
    assert wrong.value.hint == "write the rows in one of these formats, or rename their keys with datasets[].columns"


@pytest.mark.parametrize(
    "row",
    [
        {"messages": None, "text": "a", "prompt": None},
        {"text": "a", "conversations": None, "completion": "b"},
    ],
)
def test_a_null_key_is_no_key(row: dict[str, Any]) -> None:
    assert detect(row) is RowFormat.TEXT


def test_a_text_that_is_null_is_named() -> None:
    with pytest.raises(RowError, match=r"its keys are text \(null\)") as wrong:
        detect({"text": None})
    assert wrong.value.hint == "give text a value, or remove the row"


def test_a_long_list_of_keys_is_cut() -> None:
    with pytest.raises(RowError, match="and 980 more") as wrong:
        detect({f"{number:04}" * 100: 1 for number in range(1000)})
    assert len(str(wrong.value)) < 2_000


@pytest.mark.parametrize(
    ("form", "row", "sentence"),
    [
        (
            RowFormat.SHAREGPT,
            {"conversations": {}},
            r"'conversations' is an object; expected a list of \{from, value\}",
        ),
        (RowFormat.SHAREGPT, {"conversations": ["hello"]}, r"conversations\[0\] is a string"),
        (
            RowFormat.SHAREGPT,
            {"conversations": [{"from": "boss", "value": "x"}]},
            r"conversations\[0\]\.from is 'boss'",
        ),
        (
            RowFormat.SHAREGPT,
            {"conversations": [{"from": "human", "value": 5}]},
            r"conversations\[0\]\.value is a number",
        ),
        (RowFormat.SHAREGPT, {"conversations": [{"value": "x"}]}, r"conversations\[0\] has no role"),
        (
            RowFormat.SHAREGPT,
            {"conversations": [{"from": "human", "value": "q"}, {"role": "assistant", "value": "a"}]},
            r"conversations\[1\]\.value has no from",
        ),
        *(
            (
                RowFormat.SHAREGPT,
                {"conversations": [{"from": source, "value": '{"name": "f"}', key: value}]},
                rf"conversations\[0\]\.{key} repeats from and value",
            )
            for source, key, value in [
                ("gpt", "content", "b"),
                ("gpt", "role", "user"),
                ("function_call", "tool_calls", [5]),
                ("function_call", "content", "b"),
            ]
        ),
        (
            RowFormat.SHAREGPT,
            {"conversations": [{"from": "function_call", "value": "f()"}]},
            r"\.value is not JSON: column 1",
        ),
        (RowFormat.SHAREGPT, {"conversations": [{"from": "function_call", "value": "5"}]}, r"expected the JSON of"),
        (RowFormat.MESSAGES, {"messages": [{"from": "human", "value": "x"}]}, r"messages\[0\] has no role"),
        (
            RowFormat.MESSAGES,
            {"messages": [{"role": "system", "content": "a"}], "system": "b"},
            r"has 'system' and a first",
        ),
        (RowFormat.MESSAGES, {"messages": [USER, ASSISTANT], "system": 5}, r"'system' is a number"),
        (
            RowFormat.PROMPT_COMPLETION,
            {"prompt": "a", "completion": "b", "system": "c"},
            r"has 'system', which needs a chat",
        ),
        (
            RowFormat.PROMPT_COMPLETION,
            {"prompt": [USER], "completion": "b"},
            r"'completion' is a string; expected a list",
        ),
        (
            RowFormat.PROMPT_COMPLETION,
            {"prompt": "a", "completion": [ASSISTANT]},
            r"'completion' is a list; expected a string",
        ),
        (
            RowFormat.ALPACA,
            {"instruction": "a", "output": "b", "history": ["c"]},
            r"history\[0\] is not \[question, answer\]",
        ),
        (RowFormat.ALPACA, {"instruction": "a", "output": "b", "history": "c"}, r"'history' is a string"),
    ],
)
def test_a_row_that_cannot_be_read_names_the_field(form: RowFormat, row: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RowError, match=sentence):
        read(row, form)


def test_the_history_of_alpaca_is_earlier_turns() -> None:
    row = {"instruction": "2 + 2?", "output": "4", "history": [["1 + 1?", "2"]], "system": "Be brief."}
    asked = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]
    assert read(row, RowFormat.ALPACA) == Conversation(
        [{"role": "system", "content": "Be brief."}, *asked, USER, ASSISTANT]
    )


def test_a_completion_of_messages_keeps_its_place_behind_a_system_prompt() -> None:
    row = {"prompt": [USER, ASSISTANT, USER], "completion": [ASSISTANT], "system": "Be brief."}
    record = read(row, RowFormat.PROMPT_COMPLETION)
    assert isinstance(record, Conversation)
    assert record.learned == [4]


def test_the_json_of_a_call_keeps_its_nulls_and_its_other_keys_are_counted() -> None:
    called = {"from": "function_call", "value": '{"name": "f", "arguments": {"a": null}, "thought": "hm"}'}
    row = {"conversations": [{"from": "human", "value": "q"}, called]}
    record = read(row, RowFormat.SHAREGPT)
    assert isinstance(record, Conversation)
    assert record.messages[1]["tool_calls"][0]["function"]["arguments"] == {"a": None}
    assert ignored(row, RowFormat.SHAREGPT) == {"conversations[].tool_calls[].thought"}


def test_a_value_may_be_null_beside_tool_calls() -> None:
    called = {"from": "gpt", "value": None, "tool_calls": [{"function": {"name": "f"}}]}
    record = read({"conversations": [{"from": "human", "value": "q"}, called]}, RowFormat.SHAREGPT)
    assert isinstance(record, Conversation)
    assert record.messages[1]["content"] == ""


@pytest.mark.parametrize("value", [0, 1, False, [0, 1]])
@pytest.mark.parametrize("key", ["weight", "loss_mask", "mask", "train"])
def test_a_weight_of_the_whole_row_is_refused_whatever_it_is(key: str, value: Any) -> None:
    with pytest.raises(RowError, match=f"has '{key}'"):
        read({"messages": [USER, ASSISTANT], key: value}, RowFormat.MESSAGES)
