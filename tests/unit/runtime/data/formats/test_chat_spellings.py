"""Conversations of other vendors and tools are the same conversation as in OpenAI's form."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith_api.datasets import RowFormat
from tunesmith_runtime.data import formats
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.formats import FORMATS
from tunesmith_runtime.data.records import Conversation, Record
from tunesmith_runtime.data.row_error import RowError

ASKED = {"role": "user", "content": "Weather in Oslo?"}
ANSWER = {"role": "assistant", "content": "cold"}


def read(row: dict[str, Any], name: RowFormat = RowFormat.MESSAGES) -> Record | DropReason:
    return formats.read(row, FORMATS[name])


def messages(row: dict[str, Any], name: RowFormat = RowFormat.MESSAGES) -> list[dict[str, Any]]:
    record = read(row, name)
    assert isinstance(record, Conversation)
    return record.messages


USED = [
    {"type": "thinking", "thinking": "I look.", "signature": "s"},
    {"type": "text", "text": "A moment."},
    {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Oslo"}},
]
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "4 degrees"}]}
CALL = {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}


def test_blocks_of_anthropic_are_calls_results_and_thoughts() -> None:
    row = {
        "messages": [
            ASKED,
            {"role": "assistant", "content": USED},
            {"role": "user", "content": [RESULT, {"type": "text", "text": "Well?"}]},
            ANSWER,
        ],
        "tools": [{"name": "weather", "description": "d", "input_schema": {"type": "object"}}],
    }
    record = read(row)
    assert isinstance(record, Conversation)
    assert record.messages == [
        ASKED,
        {"role": "assistant", "content": "A moment.", "tool_calls": [CALL], "reasoning_content": "I look."},
        {"role": "tool", "content": "4 degrees", "tool_call_id": "t1"},
        {"role": "user", "content": "Well?"},
        ANSWER,
    ]
    schema = {"name": "weather", "description": "d", "parameters": {"type": "object"}}
    assert record.tools == [{"type": "function", "function": schema}]
    assert formats.ignored(row, FORMATS[RowFormat.MESSAGES]) == set()


def test_a_weight_counts_for_the_message_that_it_is_of() -> None:
    row = {
        "messages": [
            ASKED,
            {"role": "assistant", "content": USED, "weight": 0},
            {"role": "user", "content": [RESULT, {"type": "text", "text": "Well?"}]},
            ANSWER,
        ]
    }
    record = read(row)
    assert isinstance(record, Conversation)
    assert record.learned == [4]


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ({"role": "assistant", "content": [RESULT]}, r"messages\[1\]\.content\[0\] is a tool_result of the assistant"),
        ({"role": "user", "content": [USED[2]]}, r"messages\[1\]\.content\[0\] is a block of type tool_use"),
        (
            {"role": "assistant", "content": [{**USED[2], "input": "x"}]},
            r"messages\[1\]\.content\[0\]\.input is a string; expected an object",
        ),
        ({"role": "assistant", "content": [{**USED[2], "name": None}]}, r"name is null; expected the function's name"),
        ({"role": "tool_call", "content": "f()"}, r"messages\[1\]\.content is not JSON"),
        (
            {"role": "user", "content": [{**RESULT, "content": [{"type": "image"}]}]},
            r"messages\[1\]\.content\[0\] is not",
        ),
    ],
)
def test_a_block_that_cannot_be_read_is_named(message: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RowError, match=sentence):
        read({"messages": [ASKED, message, ANSWER]})


def test_calls_and_results_of_ms_swift_are_calls_and_results() -> None:
    row = {
        "messages": [
            ASKED,
            {"role": "tool_call", "content": '{"name": "weather", "arguments": {"city": "Oslo"}}'},
            {"role": "tool_response", "content": "4 degrees"},
            ANSWER,
        ],
        "tools": '[{"name": "weather", "parameters": {"type": "object"}}]',
    }
    bare = {key: CALL[key] for key in ("type", "function")}
    assert messages(row)[1:3] == [
        {"role": "assistant", "content": "", "tool_calls": [bare]},
        {"role": "tool", "content": "4 degrees"},
    ]
    assert formats.ignored(row, FORMATS[RowFormat.MESSAGES]) == set()


def test_pairs_of_ms_swift_are_turns() -> None:
    row = {"conversation": [{"human": "Weather in Oslo?", "assistant": "cold"}], "system": "Be brief."}
    system = {"role": "system", "content": "Be brief."}
    assert messages(row, RowFormat.SHAREGPT) == [system, ASKED, ANSWER]
    assert formats.ignored(row, FORMATS[RowFormat.SHAREGPT]) == set()
    with pytest.raises(RowError, match=r"conversation\[0\]\.assistant is a number"):
        read({"conversation": [{"human": "a", "assistant": 5}]}, RowFormat.SHAREGPT)


@pytest.mark.parametrize(
    "row",
    [
        {"query": "Weather in Oslo?", "response": "cold"},
        {"question": "Weather in Oslo?", "answer": "cold"},
        {"question": "Weather in Oslo?", "response": "cold"},
        {"instruction": "Weather in Oslo?", "response": "cold"},
        {"instruction": "Weather", "context": "in Oslo?", "response": "cold"},
        {"instruction": "Weather", "input": "in Oslo?", "response": "cold"},
    ],
)
def test_query_and_response_are_a_turn(row: dict[str, Any]) -> None:
    asked = "Weather\nin Oslo?" if len(row) == 3 else "Weather in Oslo?"
    assert messages(row, RowFormat.QUERY_RESPONSE) == [{"role": "user", "content": asked}, ANSWER]
    assert formats.ignored(row, FORMATS[RowFormat.QUERY_RESPONSE]) == set()


def test_system_and_history_come_before_the_query() -> None:
    row = {"system": "Be brief.", "query": "Weather in Oslo?", "response": "cold", "history": [["Hi", "Hello"]]}
    assert [message["content"] for message in messages(row, RowFormat.QUERY_RESPONSE)] == [
        "Be brief.", "Hi", "Hello", "Weather in Oslo?", "cold",
    ]  # fmt: skip


@pytest.mark.parametrize("key", ["input", "context", "choices", "options", "A"])
def test_a_question_is_not_learned_without_its_other_parts(key: str) -> None:
    with pytest.raises(RowError, match=f"has '{key}' beside 'question'") as wrong:
        read({"question": "Which?", "answer": "B", key: "x"}, RowFormat.QUERY_RESPONSE)
    assert f'{{prompt: "{{{key}}}\\n{{question}}", completion: "{{answer}}"}}' in (wrong.value.hint or "")


def test_a_context_beside_query_and_response_is_counted() -> None:
    row = {"query": "Weather in Oslo?", "response": "cold", "context": "a book"}
    assert formats.ignored(row, FORMATS[RowFormat.QUERY_RESPONSE]) == {"context"}
