"""A row of prompt and answer with images, videos or sounds, for multimodal models.

{"image_path": "…", "text": "…", "answer": "…"}; or any row of prompt and answer with "images", "videos" or "audios" and the
tags <image>, <video> and <audio> in its texts; or messages with content parts of OpenAI's or Anthropic's form, in whose text
parts these tags are plain text. Media without tags come before the first question. `objects` has the boxes for <ref-object> and
<bbox>.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tunesmith_api.datasets import RowFormat
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.formats import answers
from tunesmith_runtime.data.formats.alpaca import turn
from tunesmith_runtime.data.formats.format import Format, Turns, beside
from tunesmith_runtime.data.formats.media import KEYS
from tunesmith_runtime.data.formats.placing import placed, reads_media, without_parts
from tunesmith_runtime.data.records import Continuation, Conversation, MultimodalConversation, Record
from tunesmith_runtime.data.row_fields import has, text_of

TEXT_AND_ANSWER = ("text", "answer")


def read(row: dict[str, Any]) -> Record | DropReason:
    """The conversation with its media in the places of their tags."""
    plain = row
    without = {key: value for key, value in row.items() if key not in KEYS}
    if has(row, *TEXT_AND_ANSWER) and answers.format_of(without) is None:
        plain = {**row, "messages": turn(text_of(row, "text"), text_of(row, "answer"))}
    record = _read(plain)
    return placed(record, {}) if isinstance(record, Conversation | Continuation) else record


_read = reads_media(answers.read, answers.TURNS)


def _read_turns(key: str, turns: Turns) -> Turns:
    """The same key with messages whose media parts are read."""
    return replace(turns, as_messages=lambda value: turns.as_messages(without_parts(value, key, {}, ())))


VQA = Format(
    RowFormat.VQA,
    records=frozenset({MultimodalConversation}),
    spellings=(
        *beside((TEXT_AND_ANSWER,), *KEYS),
        *beside(answers.SPELLINGS, *KEYS),
    ),
    rare_spellings=answers.SPELLINGS,
    expected='{"image_path", "text", "answer"} | {"messages", "images"}',
    known=answers.KNOWN | {*KEYS, *TEXT_AND_ANSWER, "objects"},
    read=read,
    turns={key: _read_turns(key, turns) for key, turns in answers.TURNS.items()},
)
