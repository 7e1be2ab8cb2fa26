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

OPENS_A_THOUGHT = "renders a prompt differently once its answer follows"
"""The prompt opens a thought, which the template closes or leaves out once the answer follows."""
ALTERNATES = "roles must alternate"
NO_CALLS = "does not write tool_calls"
PARTS = "the model's chat template"
"""For content in parts of images and text."""
REFUSED: dict[str, dict[str, str]] = {
    "cohere": {"tools": ALTERNATES},
    "cohere2": {"tools": ALTERNATES},
    "deepseek_r1_distill": {"turns": OPENS_A_THOUGHT, "system": OPENS_A_THOUGHT, "tools": NO_CALLS},
    "deepseekv3": {"turns": OPENS_A_THOUGHT, "system": OPENS_A_THOUGHT, "tools": "can only concatenate str"},
    "gemma": {"system": "System role not supported", "tools": ALTERNATES},
    "gemma3": {"tools": ALTERNATES},
    "idefics3": dict.fromkeys(CONVERSATIONS, PARTS),
    "lfm2": {"tools": NO_CALLS},
    "llama3": {"tools": NO_CALLS},
    "llava_next": dict.fromkeys(CONVERSATIONS, PARTS),
    **{
        f"nemotron_3_{size}": dict.fromkeys(CONVERSATIONS, OPENS_A_THOUGHT)
        for size in ("nano", "super", "ultra", "5_lightning")
    },
    "phi3": {"tools": NO_CALLS},
    "phi3_5": {"tools": NO_CALLS},
    "qwen2_5_vl": {"tools": NO_CALLS},
    "smolvlm": dict.fromkeys(CONVERSATIONS, PARTS),
}
"""Family -> conversation -> why it is refused."""
BY_VARIANT = {"deepseekv3_training": {"tools": OPENS_A_THOUGHT}}


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
    assert REFUSED.keys() | BY_VARIANT.keys() <= set(TEMPLATES)
    assert len({name.removesuffix("_training") for name in TEMPLATES}) >= 40


@pytest.mark.parametrize("kind", CONVERSATIONS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_answers_follow_the_tokens_of_the_servers_prompt(tokenizer: Any, name: str, kind: str) -> None:
    chat = encoder(tokenizer, (folder() / f"{name}.jinja").read_text())
    messages = CONVERSATIONS[kind]
    record = read({"messages": messages}, MESSAGES)
    assert isinstance(record, Conversation)
    reasons = REFUSED.get(name.removesuffix("_training"), {}) | BY_VARIANT.get(name, {})
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
