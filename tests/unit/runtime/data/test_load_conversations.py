"""Conversations: tools, weights, roles and templates, as the encoded text shows them."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from tests.unit.runtime.data.families import CHATML, GEMMA, MISTRAL, QWEN3, TOOLS
from tests.unit.runtime.data.loading import (
    ANSWERED,
    ASKED,
    CALL,
    PARTS,
    chat,
    given_files,
    learned,
    read,
    texts,
    with_template,
)
from tunesmith_api.failures import FailureClass
from tunesmith_runtime.data.examples import IGNORED
from tunesmith_runtime.data.load import open_data
from tunesmith_runtime.data.records import PlainText
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.workdir import Work


def test_null_keys_and_empty_tool_calls_are_absent_for_the_template(work: Work, tokenizer: Any) -> None:
    nulls = {"tool_calls": None, "name": None, "tool_call_id": None}
    exported = chat(
        {"role": "user", "content": "kiwi?", **nulls}, {"role": "assistant", "content": "fruit", **nulls}, tools=None
    )
    listed = chat(("user", "kiwi?"), {"role": "assistant", "content": "fruit", "tool_calls": []})
    given_files(work, (0, [exported, listed, {**exported, "prompt": None, "text": None}]))
    asking = with_template(tokenizer, TOOLS)
    data = read(work, asking)
    assert set(texts(asking, data)) == {"<|im_start|>user\nkiwi?<|im_end|>\n<|im_start|>assistant\nfruit<|im_end|>\n"}
    assert data.rows.to_dict() == {"kept": 3}


def test_arguments_of_calls_are_not_quoted_twice(work: Work, tokenizer: Any) -> None:
    row = chat(("user", "Weather in Oslo?"), {"role": "assistant", "content": None, "tool_calls": [CALL]})
    given_files(work, (0, [row]))
    calling = with_template(tokenizer, QWEN3)
    (text,) = learned(calling, read(work, calling))
    assert '{"name": "weather", "arguments": {"city": "Oslo"}}' in text
    assert "\\" not in text


def test_a_developer_is_written_as_the_system(work: Work, tokenizer: Any) -> None:
    rows = [chat((role, "One word."), ASKED, ANSWERED) for role in ("system", "developer")]
    given_files(work, (0, [*rows, chat(ASKED, ANSWERED, system="One word.")]))
    assert len(set(texts(tokenizer, read(work, tokenizer)))) == 1


def test_an_answer_of_weight_zero_is_context(work: Work, tokenizer: Any) -> None:
    bad = {"role": "assistant", "content": "a metal", "weight": 0}
    row = chat(
        ("user", "kiwi?"), bad, ("user", "Are you sure?"), {"role": "assistant", "content": "a fruit", "weight": 1}
    )
    given_files(work, (0, [row]))
    data = read(work, tokenizer)
    assert learned(tokenizer, data) == ["a fruit<|im_end|>"]
    assert "assistant\na metal<|im_end|>" in texts(tokenizer, data)[0]
    assert "weight" not in texts(tokenizer, data)[0]


def test_a_row_whose_answers_all_have_weight_zero_is_dropped(work: Work, tokenizer: Any) -> None:
    given_files(
        work, (0, [chat(ASKED, {"role": "assistant", "content": "a metal", "loss": False}), chat(ASKED, ANSWERED)])
    )
    assert read(work, tokenizer).rows.to_dict() == {"kept": 1, "dropped": [{"reason": "NotLearned", "count": 1}]}


@pytest.mark.parametrize(("weight", "named"), [(0, "weight 0"), (0.5, "a weight other than 1")])
def test_a_weight_is_refused_where_every_token_is_learned(
    work: Work, tokenizer: Any, weight: float, named: str
) -> None:
    row = chat(ASKED, {"role": "assistant", "content": "a metal", "weight": weight}, ASKED, ANSWERED)
    given_files(work, (0, [row]))
    with pytest.raises(RunFailure, match=rf"line 1: has messages of {named}, and training\.lossOn: all"):
        read(work, tokenizer, training={"lossOn": "all"})


def scaled(*weights: float | None) -> dict[str, Any]:
    """A conversation with a system prompt whose answers have these values of loss_scale."""
    turns = [
        turn
        for number, weight in enumerate(weights)
        for turn in (ASKED, {"role": "assistant", "content": f"fruit {number}", "loss_scale": weight})
    ]
    return chat(*turns, system="One word.")


def test_the_tokens_of_an_answer_have_its_weight(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [scaled(0.25, 0, 3), scaled(None)]))
    first, second = read(work, tokenizer).train
    factors = [
        (weight, label) for weight, label in zip(first["weights"], first["labels"], strict=True) if label != IGNORED
    ]
    for weight, content in ((0.25, "fruit 0<|im_end|>"), (3, "fruit 2<|im_end|>")):
        assert tokenizer.decode([label for each, label in factors if each == weight]) == content
    assert len({weight for weight, _ in factors}) == 2
    assert second["weights"] is None


def test_rows_whose_weights_are_all_one_are_encoded_as_rows_without(work: Work, tokenizer: Any) -> None:
    found = []
    for row in (scaled(1.0, 1, 0.0), scaled(None, None, 0)):
        given_files(work, (0, [row]))
        found.append(read(work, tokenizer).train_file.read_bytes())
    assert found[0] == found[1]


def test_weights_are_cut_with_the_tokens(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [scaled(0.25, 3)]))
    for way in ("truncate", "left"):
        data = read(work, tokenizer, training={"truncation": way, "maxLength": 40})
        (example,) = data.train
        assert len(example["weights"]) == len(example["labels"]) == len(example["input_ids"]) <= 40


def test_a_method_that_has_no_weights_refuses_them(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [scaled(1, 0), scaled(0.5)]))
    words = r"line 2: has a message of a weight other than 0 and 1, which method gkd does not learn with"
    with pytest.raises(RunFailure, match=words) as failure:
        read(work, tokenizer, method="gkd", gkd={"teacher": {"uri": "s3://models/teacher"}})
    assert failure.value.hint == "write weight 0 or 1, or remove the key"


def test_sharegpt_is_the_same_conversation(work: Work, tokenizer: Any) -> None:
    spoken = {
        "conversations": [
            {"from": "human", "value": "What is a kiwi?"},
            {"from": "gpt", "value": "fruit", "weight": None},
        ],
        "system": "One word.",
    }
    roles = {"conversations": chat(("system", "One word."), ASKED, ANSWERED)["messages"]}
    given_files(work, (0, [spoken, roles]), (1, [chat(("system", "One word."), ASKED, ANSWERED)]))
    uris = ("s3://data/part-0/train.jsonl", "s3://data/part-1/train.jsonl")
    data = read(work, tokenizer, datasets=[{"uri": uri} for uri in uris])
    assert len(set(texts(tokenizer, data))) == 1
    assert data.rows.to_dict() == {"kept": 3}


def test_calls_in_sharegpt_are_calls_in_messages(work: Work, tokenizer: Any) -> None:
    spoken = [
        {"from": "human", "value": "Weather in Oslo?"},
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Oslo"}}'},
        {"from": "observation", "value": "4 degrees"},
        {"from": "gpt", "value": "cold"},
    ]
    bare = {key: CALL[key] for key in ("type", "function")}
    written = chat(
        ("user", "Weather in Oslo?"),
        {"role": "assistant", "tool_calls": [bare]},
        ("tool", "4 degrees"),
        ("assistant", "cold"),
    )
    schema = {"name": "weather", "parameters": {"type": "object"}}
    given_files(
        work,
        (0, [{"conversations": spoken, "tools": json.dumps([schema])}]),
        (1, [{**written, "tools": [{"type": "function", "function": schema}]}]),
    )
    uris = ("s3://data/part-0/train.jsonl", "s3://data/part-1/train.jsonl")
    calling = with_template(tokenizer, QWEN3)
    data = read(work, calling, datasets=[{"uri": uri} for uri in uris])
    assert data.rows.kept == 2
    half = len(data.train) // 2
    assert texts(calling, data)[:half] == texts(calling, data)[half:]


def test_an_answer_before_the_first_question_is_context(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [chat(("assistant", "Hello!"), ASKED, ANSWERED), chat(("system", "Be brief."), ANSWERED)]))
    data = read(work, tokenizer)
    assert learned(tokenizer, data) == ["fruit<|im_end|>"]
    assert texts(tokenizer, data)[0].startswith("<|im_start|>assistant\nHello!<|im_end|>")
    assert data.rows.to_dict() == {"kept": 1, "dropped": [{"reason": "NoPrompt", "count": 1}]}


@pytest.mark.parametrize("template", [MISTRAL, GEMMA])
def test_an_opening_answer_that_the_template_refuses_drops_the_row(work: Work, tokenizer: Any, template: str) -> None:
    given_files(work, (0, [chat(("assistant", "Hello!"), ASKED, ANSWERED), chat(ASKED, ANSWERED)]))
    rows = read(work, with_template(tokenizer, template)).rows
    assert rows.to_dict() == {"kept": 1, "dropped": [{"reason": "NoPrompt", "count": 1}]}


@pytest.mark.parametrize("truncation", ["drop", "truncate"])
def test_a_conversation_of_thousands_of_turns_is_not_rendered_for_each(
    work: Work, tokenizer: Any, truncation: str
) -> None:
    counting = copy.deepcopy(tokenizer)
    rendered: list[int] = []

    def render(messages: list[Any], **options: Any) -> str:
        rendered.append(len(messages))
        return str(tokenizer.apply_chat_template(messages, **options))

    counting.apply_chat_template = render
    given_files(work, (0, [chat(*[ASKED, ANSWERED] * 1500), chat(ASKED, ANSWERED)]))
    rows = read(work, counting, training={"maxLength": 64, "truncation": truncation}).rows
    assert rows.kept == (1 if truncation == "drop" else 2)
    assert len(rendered) < 30


def test_a_template_with_a_syntax_error_is_a_bad_model(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [chat(ASKED, ANSWERED)]))
    with pytest.raises(RunFailure, match=r"chat template has an error in line 1") as failure:
        read(work, with_template(tokenizer, "{% for m in messages %}"))
    assert failure.value.failure is FailureClass.BAD_MODEL


def test_a_template_that_ignores_calls_teaches_no_empty_answer(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [chat(ASKED, {"role": "assistant", "tool_calls": [CALL]})]))
    with pytest.raises(RunFailure, match=r"line 1: the model's chat template does not write tool_calls: 'weather'"):
        read(work, with_template(tokenizer, CHATML))


def test_rows_of_a_template_are_turns(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [{"q": "kiwi", "a": "fruit"}]), (1, [chat(ASKED, ANSWERED)]))
    template = {"prompt": "What is a {q}?", "completion": "{a}"}
    data = read(work, tokenizer, datasets=[{**PARTS[0], "template": template}, PARTS[1]])
    assert len(set(texts(tokenizer, data))) == 1


def test_rows_encoded_for_a_tokenizer_or_a_template_are_never_taken_for_another(work: Work, tokenizer: Any) -> None:
    row = chat(ASKED, ANSWERED)
    given_files(work, (0, [row]))
    other = tokenizer.train_new_from_iterator(["kiwi fruit assistant user"], 300)
    others = [with_template(other, CHATML), with_template(tokenizer, GEMMA)]
    found = []
    for each in (tokenizer, *others):
        (text,) = texts(each, read(work, each))
        rendered = each.apply_chat_template(row["messages"], tokenize=False)
        assert rendered.startswith(text.removesuffix("<|im_end|>"))
        assert "fruit" in text
        found.append(open_data(work).train[0]["input_ids"])
    assert found[0] != found[1]
    assert found[0] != found[2]


def test_a_template_that_the_method_does_not_learn_from_is_refused(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [{"q": "kiwi", "a": "fruit"}]))
    template = {"prompt": "{q}", "completion": "{a}"}
    with pytest.raises(RunFailure, match=r"BadSpec: datasets\[\]\.template: method sft learns from text"):
        read(work, tokenizer, learns_from=frozenset({PlainText}), datasets=[{**PARTS[0], "template": template}])
