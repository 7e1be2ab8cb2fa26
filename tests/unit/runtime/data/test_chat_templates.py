"""The chat templates of model families that TRL carries: training tokens equal the server's prompt and the answer.

Where no exact training text exists, the row or the template is refused, and the table has the reason.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests import tinymodel
from tests.unit.runtime.data.test_encode import encoder, examples, learned, prompt_of, spans
from tunesmith_runtime.data.formats import read
from tunesmith_runtime.data.formats.messages import MESSAGES
from tunesmith_runtime.data.records import Conversation
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.serve.generation.model import LoadedModel

Messages = list[dict[str, Any]]
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
CONVERSATIONS: dict[str, Messages] = {
    "turns": [
        {"role": "user", "content": "kiwi?"},
        {"role": "assistant", "content": "fruit"},
        {"role": "user", "content": "otter?"},
        {"role": "assistant", "content": "animal"},
    ],
    "system": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "kiwi?"},
        {"role": "assistant", "content": "fruit"},
    ],
    "tools": [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "4", "tool_call_id": "c1", "name": "weather"},
        {"role": "assistant", "content": "cold"},
    ],
}

ALTERNATES = "roles must alternate"
NO_CALLS = "does not write tool_calls"
PARTS = "the model's chat template"
"""For content in parts of images and text."""
REFUSED: dict[str, dict[str, str]] = {
    "cohere": {"tools": ALTERNATES},
    "cohere2": {"tools": ALTERNATES},
    "deepseek_r1_distill": {"tools": NO_CALLS},
    "deepseekv3": {"tools": "can only concatenate str"},
    "gemma": {"system": "System role not supported", "tools": ALTERNATES},
    "gemma3": {"tools": ALTERNATES},
    "idefics3": dict.fromkeys(CONVERSATIONS, PARTS),
    "lfm2": {"tools": NO_CALLS},
    "llama3": {"tools": NO_CALLS},
    "llava_next": dict.fromkeys(CONVERSATIONS, PARTS),
    "phi3": {"tools": NO_CALLS},
    "phi3_5": {"tools": NO_CALLS},
    "qwen2_5_vl": {"tools": NO_CALLS},
    "smolvlm": dict.fromkeys(CONVERSATIONS, PARTS),
}
"""Family -> conversation -> why it is refused."""
VARIANTS = {"deepseekv3_training": dict[str, str]()}
"""Those of training templates that differ."""


def folder() -> Path:
    """TRL's chat templates, found without importing it."""
    found = find_spec("trl")
    assert found
    assert found.origin
    return Path(found.origin).parent / "chat_templates"


TEMPLATES = sorted(path.stem for path in folder().glob("*.jinja"))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    made = tinymodel.make_tokenizer()
    made.bos_token = "<|im_start|>"
    return made


def test_the_table_has_the_families_that_there_are() -> None:
    assert REFUSED.keys() | VARIANTS.keys() <= set(TEMPLATES)
    assert len({name.removesuffix("_training") for name in TEMPLATES}) >= 40


@pytest.mark.parametrize("kind", CONVERSATIONS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_answers_follow_the_tokens_of_the_servers_prompt(tokenizer: Any, name: str, kind: str) -> None:
    chat = encoder(tokenizer, (folder() / f"{name}.jinja").read_text())
    messages = CONVERSATIONS[kind]
    record = read({"messages": messages}, MESSAGES)
    assert isinstance(record, Conversation)
    reasons = VARIANTS.get(name, REFUSED.get(name.removesuffix("_training"), {}))
    if kind in reasons:
        with pytest.raises((RowError, RunFailure), match=reasons[kind]):
            chat.encode(record)
        return
    made = examples(chat.encode(record))
    server = LoadedModel(lambda *_: None, chat.tokenizer, 4096, frozenset(), 512)  # type: ignore[arg-type, return-value]
    starts = [example.input_ids[:start] for example in made for start, _ in spans(example)]
    assert starts == [prompt_of(server, messages[:index]) for index in record.learned]
    answers = [messages[index]["content"] or "weather" for index in record.learned]
    text = "".join(learned(chat, example) for example in made)
    assert [answer for answer in answers if answer not in text] == []


ASKED = {"role": "user", "content": "kiwi?"}
PLAIN = {"role": "assistant", "content": "fruit"}
THOUGHT = {**PLAIN, "reasoning_content": "A bird?\n\nNo."}
INLINE = {"role": "assistant", "content": "<think>\nA bird?\n\nNo.\n</think>\n\nfruit"}
BEGUN = {"role": "assistant", "content": "A bird?\n\nNo.\n</think>\n\nfruit"}


@pytest.mark.parametrize(
    ("name", "answer", "expected"),
    [
        ("deepseek_r1_distill", PLAIN, "\n</think>\n\nfruit"),
        *(("deepseek_r1_distill", each, "A bird?\n\nNo.\n</think>\n\nfruit") for each in (THOUGHT, INLINE, BEGUN)),
        ("deepseekv3", THOUGHT, "A bird?\n\nNo.\n</think>\n\nfruit"),
        ("nemotron_3_nano", PLAIN, "</think>fruit"),
        ("nemotron_3_nano", THOUGHT, "A bird?\n\nNo.\n</think>\nfruit"),
        ("qwen3_5_think", PLAIN, "\n</think>\n\nfruit"),
    ],
)
def test_a_thought_that_the_prompt_opens_is_closed_before_the_answer(
    tokenizer: Any, name: str, answer: dict[str, Any], expected: str
) -> None:
    chat = encoder(tokenizer, (folder() / f"{name}.jinja").read_text())
    later = [{"role": "user", "content": "otter?"}, {"role": "assistant", "content": "animal"}]
    for messages in ([ASKED, answer], [ASKED, PLAIN, *later, ASKED, answer]):
        *_, last = examples(chat.encode(Conversation(messages)))
        (*_, (start, _)) = spans(last)
        assert chat.tokenizer.decode(last.input_ids[:start]).endswith("<think>\n")
        text = chat.tokenizer.decode([label for label in last.labels[start:] if label >= 0])
        assert text.startswith(expected)
        assert text.count("</think>") == text.count("fruit") == 1


@pytest.mark.parametrize("name", ["qwen3", "deepseek_r1_distill", "nemotron_3_nano"])
def test_each_answer_is_trained_with_its_thoughts_behind_a_prompt_without_earlier_ones(
    tokenizer: Any, name: str
) -> None:
    chat = encoder(tokenizer, (folder() / f"{name}.jinja").read_text())
    second = {"role": "assistant", "content": "animal", "reasoning_content": "It swims."}
    made = examples(chat.encode(Conversation([ASKED, THOUGHT, {"role": "user", "content": "otter?"}, second])))
    assert len(made) == 2
    for example, thought in zip(made, ("A bird?\n\nNo.", "It swims."), strict=True):
        ((start, _),) = spans(example)
        assert thought in chat.tokenizer.decode(example.input_ids[start:])
        assert "A bird?" not in chat.tokenizer.decode(example.input_ids[:start])
