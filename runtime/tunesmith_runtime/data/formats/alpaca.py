"""{"instruction": "…", "input": "…", "output": "…", "system": "…"} (Taori et al., 2023), told through the chat template."""

from __future__ import annotations

from typing import Any

from tunesmith_runtime.data.formats.messages import answered
from tunesmith_runtime.data.records import Conversation, DropReason, text_of

KEYS = ("instruction", "output")
EXPECTED = '{"instruction", "input", "output"}'


def read(row: dict[str, Any]) -> Conversation | DropReason:
    """A conversation of one turn: the user says instruction and input, on lines of their own; the answer is output."""
    asked = [part for part in (text_of(row, "instruction"), text_of(row, "input", "")) if part]
    turns = [("system", text_of(row, "system", "")), ("user", "\n".join(asked)), ("assistant", text_of(row, "output"))]
    return answered(
        [{"role": role, "content": content} for role, content in turns if content or role != "system"], None
    )
