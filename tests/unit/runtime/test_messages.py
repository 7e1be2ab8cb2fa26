"""Messages are read by the same rules in training rows, evaluation rows and requests."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.messages import (
    KNOWN,
    MOST_WEIGHT,
    OTHER_ROLES,
    REFUSED,
    SCALES,
    WEIGHTS,
    conversation,
    message,
    tools,
    unknown,
    unwritten,
    weight_of,
)

CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
READ_CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}


def read(**fields: Any) -> dict[str, Any]:
    return message({"role": "user", "content": "x", **fields}, "messages[0]")


@pytest.mark.parametrize("key", sorted(KNOWN - {"role", "content"} | REFUSED.keys()))
def test_a_null_key_is_an_absent_key(key: str) -> None:
    assert read(**{key: None}) == {"role": "user", "content": "x"}


def test_an_empty_list_of_tool_calls_is_absent() -> None:
    assert read(role="assistant", tool_calls=[]) == {"role": "assistant", "content": "x"}


def test_a_developer_is_the_system() -> None:
    assert read(role="developer") == {"role": "system", "content": "x"}


@pytest.mark.parametrize(
    "call",
    [
        CALL,
        READ_CALL,
        {"id": "c1", "name": "weather", "arguments": {"city": "Oslo"}},
        {**CALL, "type": None, "index": 0},
    ],
)
def test_arguments_are_an_object_whatever_they_were(call: dict[str, Any]) -> None:
    found = read(role="assistant", content=None, tool_calls=[call])
    assert found == {"role": "assistant", "content": "", "tool_calls": [READ_CALL]}


@pytest.mark.parametrize("arguments", [None, "", " ", "{}", {}])
def test_a_call_without_arguments_has_an_empty_object(arguments: Any) -> None:
    call = {"type": "function", "function": {"name": "now", "arguments": arguments}}
    assert read(role="assistant", tool_calls=[call])["tool_calls"][0]["function"]["arguments"] == {}


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"content": 5}, "messages[0].content", "is a number; expected a string"),
        ({"content": None}, "messages[0].content", "is missing"),
        ({"content": {"a": 1}}, "messages[0].content", "is an object"),
        ({"content": [{"type": "image_url"}]}, "messages[0].content[0]", "only text"),
        ({"content": ["x"]}, "messages[0].content[0]", "only text"),
        ({"role": None}, "messages[0].role", "has no role; expected one of assistant"),
        ({"role": ["user"]}, "messages[0].role", "has role ['user']"),
        ({"role": "function"}, "messages[0].role", "has role 'function'"),
        ({"name": 5}, "messages[0].name", "is a number"),
        ({"tool_call_id": "c1"}, "messages[0].tool_call_id", "only role tool"),
        ({"tool_calls": [CALL]}, "messages[0].tool_calls", "only role assistant"),
        ({"reasoning_content": "hm"}, "messages[0].reasoning_content", "only role assistant"),
        ({"tool_calls": "{}"}, "messages[0].tool_calls", "is a string"),
        ({"tool_calls": ["{}"]}, "messages[0].tool_calls[0]", "is a string"),
        ({"tool_calls": [{"type": "custom"}]}, "messages[0].tool_calls[0].type", "'custom'"),
        ({"tool_calls": [{"function": "f"}]}, "messages[0].tool_calls[0].function", "is a string"),
        ({"tool_calls": [{"function": {"arguments": {}}}]}, "messages[0].tool_calls[0].function.name", "is null"),
        (
            {"tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]},
            "messages[0].tool_calls[0].function.arguments",
            "is a string that holds a list; expected a JSON object",
        ),
        (
            {"tool_calls": [{"function": {"name": "f", "arguments": "city=Oslo"}}]},
            "messages[0].tool_calls[0].function.arguments",
            "is not JSON: column 1",
        ),
        (
            {"tool_calls": [{"function": {"name": "f", "arguments": '"{}"'}}]},
            "messages[0].tool_calls[0].function.arguments",
            "is a string that holds a string",
        ),
        (
            {"tool_calls": [{"function": {"name": "f", "arguments": '{"a": "\\ud83d"}'}}]},
            "messages[0].tool_calls[0].function.arguments",
            "lone surrogate",
        ),
        ({"function_call": {"name": "f"}}, "messages[0].function_call", "is not supported"),
        ({"prefix": True}, "messages[0].prefix", "is not supported"),
        ({"mask": 0}, "messages[0].mask", "is not supported"),
        ({"video": "x.mp4"}, "messages[0].video", "is not supported"),
    ],
)
def test_what_cannot_be_read_names_the_field(fields: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(RowError) as refused:
        read(**fields)
    assert refused.value.field == field
    assert words in str(refused.value)


@pytest.mark.parametrize("role", [*OTHER_ROLES, "User", " SYSTEM", "Assistant"])
def test_the_hint_for_a_role_of_another_format_names_a_role_that_is_read(role: str) -> None:
    with pytest.raises(RowError) as refused:
        read(role=role)
    written = (refused.value.hint or "").removeprefix("write role ").partition(",")[0]
    assert read(role=written)["role"] == written


@pytest.mark.parametrize("value", [{}, "hello", 5, None, ["hello"], [None], [[]]])
def test_what_is_no_list_of_messages_is_refused(value: Any) -> None:
    with pytest.raises(RowError, match="messages"):
        conversation(value, "messages")


@pytest.mark.parametrize("key", WEIGHTS)
def test_a_weight_of_zero_makes_an_answer_context(key: str) -> None:
    weights = (0, 1, False, True, 0.0, 1.0, None)
    found = [weight_of({"role": "assistant", key: weight}, "messages[0]") for weight in weights]
    assert found == [0, 1, 0, 1, 0, 1, 1]


@pytest.mark.parametrize("key", SCALES)
def test_a_scale_is_any_number_up_to_the_largest(key: str) -> None:
    found = [weight_of({"role": "assistant", key: weight}, "messages[0]") for weight in (0.5, 2, 1e-3, MOST_WEIGHT)]
    assert found == [0.5, 2, 1e-3, MOST_WEIGHT]


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        ({"role": "assistant", "loss": 0.5}, r"messages\[0\]\.loss is 0\.5; expected 0 .* or 1"),
        ({"role": "assistant", "weight": -0.5}, r"messages\[0\]\.weight is -0\.5; expected 0 .* up to 100"),
        ({"role": "assistant", "loss_scale": float("nan")}, r"messages\[0\]\.loss_scale is nan"),
        ({"role": "assistant", "weight": "1"}, r"messages\[0\]\.weight is '1'"),
        ({"role": "assistant", "loss_scale": 101}, r"messages\[0\]\.loss_scale is 101"),
        ({"role": "assistant", "loss_scale": 0.5, "weight": 1}, "loss_scale and weight that contradict each other"),
        ({"role": "assistant", "weight": 1, "loss": False}, "weight and loss that contradict each other"),
        ({"role": "user", "weight": 1}, r"messages\[0\]\.weight is 1 in a message that is not an answer"),
        ({"role": "tool", "loss_scale": 0.3}, r"messages\[0\]\.loss_scale is 0\.3 in a message that is not"),
    ],
)
def test_a_weight_that_cannot_be_honoured_is_refused(turn: dict[str, Any], words: str) -> None:
    with pytest.raises(RowError, match=words):
        weight_of(turn, "messages[0]")


def test_nulls_in_an_object_of_arguments_are_absent_and_those_in_json_text_are_kept() -> None:
    for arguments, kept in [
        ({"city": "Oslo", "days": None, "near": [{"to": None}]}, {"city": "Oslo", "near": [{}]}),
        ('{"city": null}', {"city": None}),
    ]:
        call = {"id": None, "type": "function", "function": {"name": "weather", "arguments": arguments}}
        assert read(role="assistant", tool_calls=[call])["tool_calls"][0]["function"]["arguments"] == kept


SCHEMA: dict[str, Any] = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
FILLED = {"type": "object", "properties": None, "required": None}
"""A schema in whose object a library has filled in all keys."""


@pytest.mark.parametrize(
    "value",
    [
        [SCHEMA],
        [SCHEMA["function"]],
        '[{"name": "weather", "parameters": {"type": "object"}}]',
        [{**SCHEMA, "type": None}],
        [{"type": "function", "function": None, "name": "weather", "parameters": {"type": "object"}}],
        [{"type": "function", "function": {"name": "weather", "description": None, "parameters": FILLED}}],
    ],
)
def test_tools_have_one_form(value: Any) -> None:
    assert tools(value) == [SCHEMA]


@pytest.mark.parametrize("value", [None, [], "", "[]"])
def test_no_tools_are_absent_tools(value: Any) -> None:
    assert tools(value) is None


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{}", "'tools' is a string that holds an object"),
        ("weather", "tools is a string that is not JSON"),
        (5, "'tools' is a number"),
        (["weather"], r"tools\[0\] is a string"),
        ([{}], r"tools\[0\]\.function has no name"),
        ([{"type": "retrieval"}], r"tools\[0\] is not a function schema"),
        ([{"type": "custom", "function": {"name": "f"}}], r"tools\[0\] is not a function schema"),
        ([{"name": "f", "parameters": "none"}], r"tools\[0\]\.function\.parameters is a string"),
    ],
)
def test_tools_that_are_no_schemas_are_refused(value: Any, words: str) -> None:
    with pytest.raises(RowError, match=words):
        tools(value)


def test_what_is_beside_the_function_of_a_schema_goes_to_the_template() -> None:
    assert tools([{**SCHEMA, "strict": True}]) == [{**SCHEMA, "strict": True}]


def test_keys_that_are_not_read_are_listed() -> None:
    turn = {
        "role": "user",
        "id": 7,
        "stamp": None,
        "content": [{"type": "text", "text": "x", "cache_control": {}}],
        "tool_calls": [
            {"name": "f", "arguments": {}, "status": "done"},
            {"name": "f", "function": {"name": "f", "arguments": {}, "output": "4"}},
            5,
        ],
    }
    assert set(unknown([turn, "no message"], "messages", KNOWN)) == {
        "messages[].id",
        "messages[].content[].cache_control",
        "messages[].tool_calls[].status",
        "messages[].tool_calls[].name",
        "messages[].tool_calls[].function.output",
    }


def test_text_that_a_template_leaves_out_is_named() -> None:
    calling = [{"role": "assistant", "content": "", "tool_calls": [READ_CALL]}]
    assert unwritten(calling, None, "call weather in Oslo") is None
    assert "does not write tool_calls: 'weather'" in (unwritten(calling, None, "assistant") or "")
    assert "does not write tools" in (unwritten([], [SCHEMA], "user: hi") or "")
    named = {"role": "user", "content": "hi", "name": "Ada"}
    assert "does not write name: 'Ada'" in (unwritten([named], None, "user: hi") or "")
    assert unwritten([{"role": "tool", "content": "4", "name": "weather"}], None, "tool: 4 degrees") is None


@pytest.mark.parametrize(
    ("content", "text", "lost"),
    [
        ("Be brief.", "user: hi", True),
        ("  Be\n\tbrief. ", "system: Be brief.", False),
        ('Say "hi".', r'system: "Say \"hi\"."', False),
        ("<think>\nhm\n</think>\n\nfruit", "assistant: fruit", False),
        ("<think>\nhm\n</think>\n\n", "assistant: ", False),
        ("答案是水果", "助手", True),
        (" \n", "", False),
    ],
)
def test_content_that_a_template_leaves_out_is_named(content: str, text: str, lost: bool) -> None:
    assert (unwritten([{"role": "system", "content": content}], None, text) is not None) == lost


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
turns = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool", "developer"]) | json_values},
    optional={
        key: json_values
        for key in sorted((KNOWN | REFUSED.keys() | {"weight", "loss", "loss_scale", "else"}) - {"role"})
    },
)


@given(value=st.lists(turns | json_values, max_size=4) | json_values)
def test_every_value_is_read_or_refused_and_reading_again_changes_nothing(value: Any) -> None:
    try:
        read = conversation(value, "messages")
        assert all(0 <= weight_of(each, "messages[0]") <= MOST_WEIGHT for each in value)
    except RowError:
        return
    assert conversation(read, "messages") == read
    assert all(each["role"] in ("user", "assistant", "system", "tool") for each in read)
    assert all(isinstance(each["content"], str) for each in read)
    assert list(unknown(read, "messages", KNOWN)) == []
    list(unknown(value, "messages", KNOWN))
