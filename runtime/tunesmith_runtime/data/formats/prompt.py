"""A prompt whose answers the model writes itself, with further columns that rewards read. For GRPO and its kin.

{"prompt": "…" or messages, "answer": "…"}, or the keys of a row of prompt and answer. An answer at the end of the messages
is left out. A row may have media, as in format vqa.
"""

from __future__ import annotations

from typing import Any

from tunesmith_api.datasets import RowFormat
from tunesmith_runtime import messages as chat
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.formats import anthropic, prompts
from tunesmith_runtime.data.formats.format import Format
from tunesmith_runtime.data.formats.placing import MEDIA_KEYS, reads_media
from tunesmith_runtime.data.records import MultimodalPrompt, Prompt
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.row_fields import keys_of

COLUMNS = frozenset({"label", "labels", "chosen", "rejected", "weight", "weights", "mask", "loss", "documents"})
"""Keys that other formats refuse, and that are columns for rewards here."""


def read(row: dict[str, Any]) -> Prompt | DropReason:
    """The prompt, and all columns that are no part of it."""
    key = prompts.find(row)
    if key is None:
        raise RowError(f"has no prompt; its keys are {keys_of(row)}; expected {PROMPT.expected}")
    prompt = prompts.read(row, key)
    tools = chat.tools(anthropic.tools(row.get("tools")))
    if isinstance(prompt, str):
        if tools:
            raise RowError("has 'tools', which need a chat template, and its prompt is plain text", field="tools")
        is_empty = not prompt.strip()
    else:
        while prompt and prompt[-1]["role"] == "assistant":
            prompt = prompt[:-1]
        is_empty = not any(message["role"] == "user" and message["content"].strip() for message in prompt)
    if is_empty:
        return DropReason.NO_PROMPT
    return Prompt(prompt, tools, {name: value for name, value in row.items() if name not in _read_with(key)})


def _read_with(key: str) -> frozenset[str]:
    """The keys that belong to a prompt at `key`. Of a row {prompt, question}, the question is a column."""
    further = {"input", "context"} if key == "instruction" else set()
    return frozenset({key, "system", "tools", *further, *({"history"} if key in prompts.QUESTIONS else ())})


PROMPT = Format(
    RowFormat.PROMPT,
    records=frozenset({Prompt, MultimodalPrompt}),
    spellings=tuple((key,) for key in prompts.KEYS),
    expected='{"prompt", …columns for rewards}',
    known=prompts.READ | COLUMNS | MEDIA_KEYS,
    read=reads_media(read, prompts.TURNS),
    turns=prompts.TURNS,
    reads_all=True,
)
