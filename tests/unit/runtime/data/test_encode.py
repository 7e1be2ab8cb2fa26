"""Encoding: the loss is on the answer only, and every answer follows the tokens that a server makes of its prompt."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import tinymodel
from tests.unit.runtime.data.families import CHATML, GEMMA, LLAMA, MISTRAL, QWEN3, STATEFUL, TOOLS
from tunesmith_api.datasets import RowFormat
from tunesmith_api.failures import FailureClass
from tunesmith_api.method_facts import Method
from tunesmith_api.training import LossOn, Training, Truncation
from tunesmith_runtime.data import text_encoder
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.encode import Encoder, truncation_of
from tunesmith_runtime.data.examples import IGNORED, Example
from tunesmith_runtime.data.formats import FORMATS, read
from tunesmith_runtime.data.records import Continuation, Conversation, PlainText
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.serve.generation.model import LoadedModel
from tunesmith_runtime.serve.openai.requests import ChatRequest, parse

FORGETS_THOUGHTS = (
    "{% set last = namespace(user=-1) %}{% for m in messages %}{% if m.role == 'user' %}{% set last.user = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.index0 > last.user %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""As Qwen3: the answer to the last question has its thoughts, earlier ones have lost theirs."""

NO_STOP = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
CLOSED_PROMPT = "{% for m in messages %}[{{ m.content }}]{% endfor %}{% if add_generation_prompt %}answer:{% endif %}"
REFUSES = "{{ raise_exception('roles must alternate') }}"

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)


def encoder(tokenizer: Any, template: str | None = tinymodel.CHAT_TEMPLATE, **settings: Any) -> Encoder:
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = template
    return Encoder(changed, frozenset([tokenizer.eos_token_id]), settings.pop("max_length", 4096), **settings)


def conversation(*contents: str) -> Conversation:
    roles = ("user", "assistant")
    return Conversation([{"role": roles[index % 2], "content": content} for index, content in enumerate(contents)])


def examples(made: list[Example] | DropReason) -> list[Example]:
    assert not isinstance(made, DropReason)
    return made


def learned(encoder: Encoder, example: Example) -> str:
    """The text of the tokens that have a label."""
    return str(encoder.tokenizer.decode([label for label in example.labels if label != IGNORED]))


def spans(example: Example) -> list[tuple[int, int]]:
    """Where runs of labels start and end."""
    marks = [label != IGNORED for label in example.labels] + [False]
    starts = [at for at, mark in enumerate(marks) if mark and not (at and marks[at - 1])]
    return [(start, marks.index(False, start)) for start in starts]


def test_the_loss_is_on_the_answer_and_its_stop_token_only(tokenizer: Any) -> None:
    chat = encoder(tokenizer)
    (example,) = examples(chat.encode(conversation("What is tin?", "metal")))
    assert learned(chat, example) == "metal<|im_end|>"
    assert (
        tokenizer.decode(example.input_ids)
        == "<|im_start|>user\nWhat is tin?<|im_end|>\n<|im_start|>assistant\nmetal<|im_end|>\n"
    )


def test_labels_are_the_tokens_themselves(tokenizer: Any) -> None:
    (example,) = examples(encoder(tokenizer).encode(conversation("a", "b", "c", "d")))
    assert all(label in (IGNORED, token) for token, label in zip(example.input_ids, example.labels, strict=True))


@given(contents=st.lists(texts, min_size=2, max_size=8).filter(lambda contents: len(contents) % 2 == 0))
@pytest.mark.parametrize("template", [tinymodel.CHAT_TEMPLATE, FORGETS_THOUGHTS, NO_STOP])
def test_every_answer_follows_the_tokens_that_a_server_makes_of_its_prompt(
    tokenizer: Any, template: str, contents: list[str]
) -> None:
    chat, talk = encoder(tokenizer, template), conversation(*contents)
    made = examples(chat.encode(talk))
    served = [
        list(
            chat.tokenizer.apply_chat_template(talk.messages[:count], add_generation_prompt=True, tokenize=True)[
                "input_ids"
            ]
        )
        for count in range(1, len(contents), 2)
    ]
    assert [example.input_ids[:start] for example in made for start, _ in spans(example)] == served


@given(contents=st.lists(texts, min_size=2, max_size=8).filter(lambda contents: len(contents) % 2 == 0))
def test_every_answer_of_a_conversation_is_learned_once(tokenizer: Any, contents: list[str]) -> None:
    chat = encoder(tokenizer)
    (example,) = examples(chat.encode(conversation(*contents)))
    assert learned(chat, example) == "".join(f"{answer}<|im_end|>" for answer in contents[1::2])


def test_a_template_that_rewrites_earlier_turns_gives_an_example_per_answer(tokenizer: Any) -> None:
    chat = encoder(tokenizer, FORGETS_THOUGHTS)
    made = examples(chat.encode(conversation("a", "b", "c", "d")))
    assert [learned(chat, example) for example in made] == [
        f"<think>\n\n</think>\n\n{answer}<|im_end|>" for answer in "bd"
    ]
    assert "<think>" not in tokenizer.decode(made[1].input_ids[: spans(made[1])[0][0]])


def test_answers_before_learn_from_are_context(tokenizer: Any) -> None:
    chat, talk = encoder(tokenizer), conversation("a", "b", "c", "d")
    (example,) = examples(chat.encode(Conversation(talk.messages, learn_from=3)))
    assert learned(chat, example) == "d<|im_end|>"


def test_an_answer_without_a_stop_token_gets_one(tokenizer: Any) -> None:
    chat = encoder(tokenizer, NO_STOP)
    (example,) = examples(chat.encode(conversation("a", "b")))
    assert learned(chat, example) == "b\n<|im_end|>"


def test_loss_on_all_labels_every_token(tokenizer: Any) -> None:
    (example,) = examples(encoder(tokenizer, loss_on=LossOn.ALL).encode(conversation("a", "b")))
    assert example.labels == example.input_ids


def test_plain_text_continues_its_prompt_and_stops(tokenizer: Any) -> None:
    plain = encoder(tokenizer, None)
    (example,) = examples(plain.encode(Continuation("2 + 2 =", " 4")))
    assert tokenizer.decode(example.input_ids) == "2 + 2 = 4<|im_end|>"
    assert learned(plain, example) == " 4<|im_end|>"


def test_tokens_that_would_merge_over_the_seam_stay_apart(tokenizer: Any) -> None:
    (example,) = examples(encoder(tokenizer, None).encode(Continuation("met", "al")))
    prompt = tokenizer("met", add_special_tokens=False)["input_ids"]
    assert tokenizer("metal", add_special_tokens=False)["input_ids"][: len(prompt)] != prompt
    assert example.input_ids[: len(prompt)] == prompt
    assert tokenizer.decode(example.input_ids) == "metal<|im_end|>"


def test_a_stop_token_inside_a_text_ends_nothing(tokenizer: Any) -> None:
    plain = encoder(tokenizer, None)
    (example,) = examples(plain.encode(Continuation("", "a<|im_end|>b")))
    assert learned(plain, example) == "a<|im_end|>b<|im_end|>"


def test_a_row_that_is_too_long_is_dropped(tokenizer: Any) -> None:
    assert encoder(tokenizer, max_length=8).encode(conversation("a" * 50, "b")) is DropReason.TOO_LONG


def test_a_row_that_is_too_long_is_cut_where_that_is_asked_for(tokenizer: Any) -> None:
    cutting = encoder(tokenizer, max_length=16, truncation=Truncation.TRUNCATE)
    (example,) = examples(cutting.encode(conversation("a", "b" * 100)))
    assert len(example.input_ids) == len(example.labels) == 16


def test_a_row_whose_answer_is_cut_off_is_dropped(tokenizer: Any) -> None:
    cutting = encoder(tokenizer, max_length=16, truncation=Truncation.TRUNCATE)
    assert cutting.encode(conversation("ab " * 50, "b")) is DropReason.ANSWER_CUT_OFF


def test_the_end_of_a_long_row_is_kept_with_its_last_answer(tokenizer: Any) -> None:
    cutting = encoder(tokenizer, max_length=24, truncation=Truncation.LEFT)
    talk = conversation("a" * 50, "b", "c", "d")
    (whole,) = examples(encoder(tokenizer).encode(talk))
    (example,) = examples(cutting.encode(talk))
    assert example.input_ids == whole.input_ids[-len(example.input_ids) :]
    assert len(example.input_ids) <= 24
    assert learned(cutting, example).endswith("d<|im_end|>")
    assert cutting.encode(conversation("a", "b" * 100)) is DropReason.ANSWER_CUT_OFF


def test_only_plain_text_is_split(tokenizer: Any) -> None:
    splitting = encoder(tokenizer, max_length=8, truncation=Truncation.SPLIT)
    assert splitting.encode(conversation("a" * 50, "b")) is DropReason.TOO_LONG
    pieces = examples(splitting.encode(PlainText("@" * 20)))
    assert [len(piece.input_ids) for piece in pieces] == [8, 8, 5]
    assert "".join(tokenizer.decode(piece.input_ids) for piece in pieces) == "@" * 20 + "<|im_end|>"


def test_a_corpus_that_is_packed_is_split_unless_it_is_to_be_cut() -> None:
    kept = {
        (packing, truncation): truncation_of(Training(packing=packing, truncation=truncation), Method.PRETRAIN)
        for packing in (False, True)
        for truncation in Truncation
    }
    changed = {key: used for key, used in kept.items() if used is not key[1]}
    assert changed == {(True, Truncation.DROP): Truncation.SPLIT}
    assert truncation_of(Training(packing=True), Method.SFT) is Truncation.DROP


@pytest.mark.parametrize("truncation", [Truncation.SPLIT, Truncation.LEFT])
def test_a_very_long_text_is_read_to_its_end(
    tokenizer: Any, truncation: Truncation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_encoder, "PIECE", 100)
    text = " ".join(str(number) for number in range(500))
    reading = encoder(tokenizer, max_length=64, truncation=truncation)
    made = examples(reading.encode(PlainText(text)))
    decoded = "".join(tokenizer.decode(example.input_ids) for example in made)
    assert f"{text}<|im_end|>".endswith(decoded)
    assert decoded.endswith("499<|im_end|>")
    assert (len(decoded) > len(text)) == (truncation is Truncation.SPLIT)


def test_messages_without_a_chat_template_are_refused(tokenizer: Any) -> None:
    with pytest.raises(RunFailure, match="tokenizer has none") as failure:
        encoder(tokenizer, None).encode(conversation("a", "b"))
    assert failure.value.failure is FailureClass.CHAT_TEMPLATE_MISSING


def test_a_template_whose_prompt_is_no_prefix_is_refused_instead_of_masked_wrongly(tokenizer: Any) -> None:
    with pytest.raises(RunFailure, match="renders a prompt differently once its answer follows") as failure:
        encoder(tokenizer, CLOSED_PROMPT).encode(conversation("a", "b"))
    assert failure.value.failure is FailureClass.CHAT_TEMPLATE_MISSING


def test_a_row_that_the_template_refuses_is_a_bad_row(tokenizer: Any) -> None:
    with pytest.raises(RowError, match="roles must alternate"):
        encoder(tokenizer, REFUSES).encode(conversation("a", "b"))


@pytest.mark.parametrize("template", [CHATML, LLAMA, MISTRAL, GEMMA, QWEN3, TOOLS, STATEFUL])
@pytest.mark.parametrize(
    "rows",
    [
        [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")],
        [("developer", "Be brief."), ("user", [{"type": "text", "text": "a"}]), ("assistant", "b")],
        [("system", "Be brief."), ("assistant", "Hello!"), ("user", "a"), ("assistant", "b")],
        [
            ("user", "Weather?"),
            (
                "assistant",
                None,
                {"tool_calls": [{"id": "c1", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}]},
            ),
            ("tool", "4", {"tool_call_id": "c1", "name": "weather"}),
            ("assistant", "cold"),
        ],
        [("user", "a"), ("assistant", "b", {"reasoning_content": None}), ("user", "c"), ("assistant", "d")],
        [("user", "a", {"name": "Ada", "tool_calls": []}), ("assistant", "b", {"name": None})],
    ],
)
def test_a_row_is_learned_after_the_prompt_of_the_same_request_or_both_are_refused(
    tokenizer: Any, template: str, rows: list[tuple[Any, ...]]
) -> None:
    messages = [{"role": role, "content": content, **(more[0] if more else {})} for role, content, *more in rows]
    chat = encoder(tokenizer, template)
    server = LoadedModel(lambda *_: None, chat.tokenizer, 512, frozenset(), 512)  # type: ignore[arg-type, return-value]
    try:
        record = read({"messages": messages}, FORMATS[RowFormat.MESSAGES])
        assert isinstance(record, Conversation)
        made = chat.encode(record)
    except RowError:
        refused = [turns for turns in (messages[:-1], messages) if _refused(server, turns)]
        assert refused
        return
    if made is DropReason.NO_PROMPT:
        assert _refused(server, messages[:-1])
        return
    starts = [example.input_ids[:start] for example in examples(made) for start, _ in spans(example)]
    assert starts == [prompt_of(server, messages[:index]) for index in record.learned]


def prompt_of(server: LoadedModel, messages: list[dict[str, Any]]) -> list[int]:
    return server.encode_chat(parse(ChatRequest, {"model": "m", "messages": messages}).messages).tokens


def _refused(server: LoadedModel, messages: list[dict[str, Any]]) -> bool:
    try:
        prompt_of(server, messages)
    except ValueError:
        return True
    return False


def test_thoughts_that_the_template_leaves_out_are_refused(tokenizer: Any) -> None:
    talk = conversation("a", "b")
    talk.messages[1]["reasoning_content"] = "Let me see."
    with pytest.raises(RowError, match=r"does not write reasoning_content: 'Let me see\.'"):
        encoder(tokenizer, CHATML).encode(talk)
    qwen = encoder(tokenizer, QWEN3)
    (example,) = examples(qwen.encode(talk))
    assert learned(qwen, example) == "<think>\nLet me see.\n</think>\n\nb<|im_end|>"


PARTS = "{% for m in messages %}{{ m.role }}:{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}\n{% endfor %}"
"""For content in parts of images and text; of a string it writes nothing."""
TWO_ROLES = "{% for m in messages %}{% if m.role in ('user', 'assistant') %}{{ m.role + ': ' + m.content }}\n{% endif %}{% endfor %}"
CALLS_ONLY = (
    "{% for m in messages %}{{ m.role }}: {% if m.tool_calls %}{{ m.tool_calls[0].function.name }}"
    "{% else %}{{ m.content }}{% endif %}\n{% endfor %}"
)


@pytest.mark.parametrize(
    ("template", "messages", "role"),
    [
        (PARTS, [("user", "kiwi"), ("assistant", "fruit")], "user"),
        (TWO_ROLES, [("system", "brief"), ("user", "kiwi"), ("assistant", "fruit")], "system"),
        (TWO_ROLES, [("user", "kiwi"), ("system", "brief"), ("assistant", "fruit")], "system"),
        (TWO_ROLES, [("user", "kiwi"), ("tool", "berry"), ("assistant", "fruit")], "tool"),
        (CALLS_ONLY, [("user", "kiwi"), ("assistant", "waiting")], "assistant"),
    ],
)
def test_content_that_the_template_leaves_out_is_refused(
    tokenizer: Any, template: str, messages: list[tuple[str, str]], role: str
) -> None:
    rows: list[dict[str, Any]] = [{"role": name, "content": content} for name, content in messages]
    if template == CALLS_ONLY:
        rows[-1]["tool_calls"] = [{"function": {"name": "look", "arguments": {}}}]
    chat = encoder(tokenizer, template)
    record = read({"messages": rows}, FORMATS[RowFormat.MESSAGES])
    assert isinstance(record, Conversation)
    with pytest.raises(RowError, match=f"does not write the content of role {role}") as refused:
        chat.encode(record)
    assert refused.value.hint
    server = LoadedModel(lambda *_: None, chat.tokenizer, 512, frozenset(), 512)  # type: ignore[arg-type, return-value]
    assert _refused(server, rows[:-1]) == (role != "assistant")


def test_a_template_that_refuses_every_answer_makes_an_opening_assistant_a_bad_row(tokenizer: Any) -> None:
    template = "{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content.text.upper() }}{% endif %}{{ m.content }}{% endfor %}"
    talk = Conversation([{"role": role, "content": "a"} for role in ("assistant", "user", "assistant")])
    with pytest.raises(RowError, match="is refused by the model's chat template"):
        encoder(tokenizer, template).encode(talk)


def test_names_of_functions_are_found_as_json_writes_them(tokenizer: Any) -> None:
    talk = conversation("a", "b")
    for name in ("wetter_für", 'say "hi"', "天気"):
        called = {"type": "function", "function": {"name": name, "arguments": {}}}
        written = Conversation([talk.messages[0], {**talk.messages[1], "tool_calls": [called]}], [called])
        assert examples(encoder(tokenizer, QWEN3).encode(written))


def test_an_answer_without_a_token_to_predict_is_dropped(tokenizer: Any) -> None:
    silent = copy.deepcopy(tokenizer)
    silent.eos_token = None
    alone = Encoder(silent, frozenset(), 64)
    assert alone.encode(Continuation("", "a")) is DropReason.EMPTY_ANSWER
