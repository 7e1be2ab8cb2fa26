from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_api.datasets import RowTemplate
from tunesmith_api.evaljob import BenchmarkDataset, BenchmarkType
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.evaluate.rows import Row, convert_choice, convert_question, converter

ASKED = {"role": "user", "content": "What is a kiwi?"}
SYSTEM = {"role": "system", "content": "Be brief."}
ANSWER = {"role": "assistant", "content": "fruit"}


def convert(row: Row, kind: BenchmarkType = BenchmarkType.QA, **fields: Any) -> tuple[Row, set[str]]:
    return converter(BenchmarkDataset(uri="s3://data/test.jsonl", type=kind, **fields))(row)


def ignored(row: Row, kind: BenchmarkType) -> set[str]:
    return convert(row, kind)[1]


@pytest.mark.parametrize(
    "row",
    [
        {"query": "What is a kiwi?", "response": "fruit"},
        {"prompt": "What is a kiwi?", "completion": "fruit"},
        {"prompt": [ASKED], "completion": [ANSWER]},
        {"instruction": "What is a kiwi?", "input": None, "output": "fruit"},
        {"messages": [ASKED, ANSWER]},
        {"messages": [ASKED, ANSWER, {"role": "user", "content": "Thanks."}]},
        {"query": "What is a kiwi?", "response": "fruit", "source": "a book"},
        {"query": "What is a kiwi?", "response": "fruit", "system": None, "messages": None, "history": []},
        {"messages": [{**ASKED, "tool_calls": None, "name": None}, {**ANSWER, "tool_calls": []}], "tools": None},
        {"conversations": [{"from": "human", "value": "What is a kiwi?"}, {"from": "gpt", "value": "fruit"}]},
        {"messages": [ASKED, {**ANSWER, "weight": 1}]},
        {"messages": [ASKED, {**ANSWER, "loss_scale": 0.5}]},
        {"messages": [ASKED, ANSWER, ASKED, {**ANSWER, "content": "a metal", "weight": 0}]},
        {"question": "What is a kiwi?", "answer": "fruit"},
        {"conversation": [{"human": "What is a kiwi?", "assistant": "fruit"}]},
    ],
)
def test_every_form_gives_the_same_question(row: dict[str, Any]) -> None:
    assert convert_question(row) == {"messages": [ASKED], "response": "fruit"}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [SYSTEM, ASKED, ANSWER]},
        {"messages": [{**SYSTEM, "role": "developer"}, ASKED, ANSWER]},
        {"messages": [ASKED, ANSWER], "system": "Be brief."},
        {"system": "Be brief.", "query": "What is a kiwi?", "response": "fruit"},
        {"system": "Be brief.", "instruction": "What is a kiwi?", "output": "fruit"},
    ],
)
def test_a_rows_own_system_message_is_kept(row: dict[str, Any]) -> None:
    assert convert_question(row) == {"messages": [SYSTEM, ASKED], "response": "fruit"}


def test_a_template_makes_question_and_answer_of_columns() -> None:
    template = RowTemplate(system="Be {mood}.", prompt="What is a {word}?", completion="{meaning}")
    row = {"mood": "brief", "word": "kiwi", "meaning": "fruit", "source": "a book"}
    asked, unread = convert(row, template=template)
    assert asked == {"messages": [SYSTEM, ASKED], "response": "fruit"}
    assert unread == {"source"}
    with pytest.raises(
        RowError, match=r"has no 'word', which benchmarks\[\]\.dataset\.template\.prompt names; its keys are mood"
    ):
        convert({"mood": "brief", "meaning": "fruit"}, template=template)


def test_columns_are_renamed_first() -> None:
    row = {"frage": "What is a kiwi?", "antwort": "fruit"}
    asked, _ = convert(row, columns={"frage": "query", "antwort": "response"})
    assert asked == {"messages": [ASKED], "response": "fruit"}


def test_the_turns_of_a_history_are_asked() -> None:
    row = {"query": "And an otter?", "response": "animal", "history": [["What is a kiwi?", "fruit"]]}
    asked = [ASKED, ANSWER, {"role": "user", "content": "And an otter?"}]
    assert convert_question(row) == {"messages": asked, "response": "animal"}


def test_calls_of_tools_are_asked_as_training_learned_them() -> None:
    called = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    read = {**called, "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    returned = {"role": "tool", "tool_call_id": "c1", "content": "4"}
    row = {"messages": [ASKED, {"role": "assistant", "content": None, "tool_calls": [called]}, returned, ANSWER]}
    calling = {"role": "assistant", "content": "", "tool_calls": [read]}
    assert convert_question(row) == {"messages": [ASKED, calling, returned], "response": "fruit"}


def test_keys_that_are_not_read_are_listed() -> None:
    noted: Row = {"messages": [{**ASKED, "stamp": 5}, ANSWER], "id": 7, "url": None}
    assert ignored(noted, BenchmarkType.QA) == {"id", "messages[].stamp"}
    assert ignored({"query": "x", "response": "y", "id": 7, "system": "z"}, BenchmarkType.QA) == {"id"}
    chosen = {"question": "?", "A": "x", "B": "y", "answer": "A", "C": None, "topic": "sums"}
    assert ignored(chosen, BenchmarkType.MULTIPLE_CHOICE) == {"topic"}


def test_earlier_turns_are_asked_and_the_last_answer_is_the_reference() -> None:
    more = {"role": "user", "content": "And an otter?"}
    row = {"messages": [ASKED, ANSWER, more, {"role": "assistant", "content": "animal"}]}
    assert convert_question(row) == {"messages": [ASKED, ANSWER, more], "response": "animal"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"input": "x", "output": "y"}, "is in no known format: its keys are input, output"),
        ({"question": "x", "answer": "y", "A": "y", "B": "z"}, "has 'A' beside 'question'"),
        (
            {"prompt": "x", "chosen": "y", "rejected": "z"},
            "is of format preference, which has no single expected answer",
        ),
        ({"text": "x"}, "is of format text, which has no single expected answer"),
        ({"messages": [{**ASKED, "content": " "}, ANSWER]}, "has no question: it is empty"),
        ({}, "its keys are none"),
        ({"query": "x", "response": ""}, "no answer to compare with"),
        ({"query": "x", "response": " \n"}, "no answer to compare with"),
        ({"query": "x", "response": 3}, "'response' is a number"),
        ({"query": " ", "response": "y"}, "has no question"),
        ({"messages": [ASKED]}, "no answer to compare with"),
        ({"messages": [ANSWER]}, "has no question"),
        ({"messages": "hello"}, "'messages' is a string"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "role 'boss'"),
        ({"messages": [ASKED, {**ANSWER, "weight": 0}]}, "all have weight 0"),
        ({"messages": [ASKED, {**ANSWER, "weight": -1}]}, "messages[1].weight is -1"),
        ({"messages": [{**ASKED, "name": "Ada"}, ANSWER]}, "messages[0].name is not supported in evaluations"),
        ({"messages": [ASKED, {**ANSWER, "reasoning_content": "hm"}, ASKED, ANSWER]}, "messages[1].reasoning_content"),
        ({"messages": [ASKED, ANSWER], "tools": [{"name": "f"}]}, "has 'tools'"),
        ({"messages": [ASKED, ANSWER], "images": ["x.png"]}, "has 'images'"),
        ({"query": "x", "response": "y", "history": "z"}, "'history' is a string"),
        ({"query": "x", "response": "y", "rejected_response": "z"}, "has 'rejected_response'"),
        ({"query": None, "response": None}, "its keys are query (null), response (null)"),
        ({"prompt": "x", "completion": 4}, "'completion' is a number"),
    ],
)
def test_an_invalid_question_is_refused_with_the_cause(row: dict[str, Any], words: str) -> None:
    with pytest.raises(RowError) as wrong:
        convert_question(row)
    assert words in str(wrong.value)


@pytest.mark.parametrize("key", ["tools", "functions"])
@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "a", "completion": "b"},
        {"query": "a", "response": "b"},
        {"instruction": "a", "output": "b"},
        {"messages": [ASKED, ANSWER]},
    ],
)
def test_the_hint_for_tools_leads_to_no_other_form(row: dict[str, Any], key: str) -> None:
    with pytest.raises(RowError, match=f"has '{key}', which evaluations do not support") as refused:
        convert_question({**row, key: [{"name": "f"}]})
    assert refused.value.hint == "remove the rows that need tools"


def test_the_hint_for_a_system_prompt_beside_plain_text_leads_to_a_question() -> None:
    with pytest.raises(RowError) as refused:
        convert_question({"prompt": "What is a kiwi?", "completion": "fruit", "system": "Be brief."})
    assert refused.value.hint == "name the keys instruction and output instead of prompt and completion"
    row = {"instruction": "What is a kiwi?", "output": "fruit", "system": "Be brief."}
    assert convert_question(row) == {"messages": [SYSTEM, ASKED], "response": "fruit"}


@pytest.mark.parametrize("key", ["system", "system_prompt", "history", "tools", "functions"])
def test_the_hint_for_a_key_that_choices_lack_is_about_choices(key: str) -> None:
    row = {"question": "2 + 2?", "A": "3", "B": "4", "answer": "B"}
    with pytest.raises(RowError, match=f"has '{key}'") as refused:
        convert_choice({**row, key: "Be brief."})
    assert refused.value.hint == "write its content into the question, and remove the key"
    assert convert_choice({**row, "question": "Be brief. 2 + 2?"})


def test_choices_become_text_and_the_answer_a_letter() -> None:
    row = {"id": 7, "question": "2 + 2?", "A": 3, "B": 4, "C": "5", "answer": " b ", "topic": "sums"}
    assert convert_choice(row) == {"question": "2 + 2?", "A": "3", "B": "4", "C": "5", "answer": "B"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"A": "x", "B": "y", "answer": "A"}, "has no 'question'"),
        ({"question": "?", "A": "x", "answer": "A"}, "has the choices A; expected"),
        ({"question": "?", "A": "x", "C": "y", "answer": "A"}, "without a gap"),
        ({"question": "?", "A": "x", "B": "y", "answer": "C"}, "expected one of A, B"),
        ({"question": "?", "A": "x", "B": ["y"], "answer": "A"}, "'B' is a list"),
        ({"question": "?", "A": "x", "B": " ", "answer": "A"}, "'B' is empty"),
        ({"question": "?", "A": "x", "B": "y", "C": "x ", "answer": "A"}, "'A' and 'C' are the same choice, 'x'"),
        ({"question": "?", "A": 1, "B": "1", "answer": "A"}, "'A' and 'B' are the same choice"),
        ({"question": "?", "A": "x", "B": "y", "answer": ""}, "expected one of A, B"),
        ({"question": "?", "A": "x", "B": "y", "answer": "x"}, "expected one of A, B"),
        ({"question": "?", "A": "x", "B": "y"}, "has no 'answer'"),
        ({"question": "?", "A": "x", "B": None, "answer": "A"}, "has the choices A; expected"),
        ({"question": "?", **dict.fromkeys("ABCDEFGHIJK", "x"), "answer": "A"}, "2 to 10 of them"),
        ({"question": "?", "A": "x", "B": "y", "answer": 1}, "'answer' is a number"),
        ({"question": "?", "A": "x", "B": "y", "answer": "A", "system": "Be brief."}, "has 'system'"),
        ({"question": None, "A": "x", "B": "y", "answer": "A"}, "'question' is null"),
    ],
)
def test_an_invalid_choice_is_refused_with_the_cause(row: dict[str, Any], words: str) -> None:
    with pytest.raises(RowError) as wrong:
        convert_choice(row)
    assert words in str(wrong.value)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=6,
)
turns = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool", "system"]) | values, "content": texts | values},
        optional={key: values for key in ("name", "tool_calls", "tool_call_id", "weight", "from", "value", "else")},
    ),
    max_size=4,
)
names = (
    "query",
    "response",
    "prompt",
    "completion",
    "messages",
    "conversations",
    "system",
    "history",
    "question",
    "answer",
)
rows = st.dictionaries(
    st.sampled_from([*names, "A", "B", "C", "K", "tools", "images", "label"]), texts | turns | values
)


@given(row=rows)
def test_every_row_is_asked_or_refused(row: dict[str, Any]) -> None:
    for kind in (BenchmarkType.QA, BenchmarkType.MULTIPLE_CHOICE):
        try:
            asked, _ = convert(row, kind)
        except RowError:
            continue
        assert asked.get("response", asked.get("answer"))
        assert all(isinstance(message["content"], str) for message in asked.get("messages", ()))
