"""Encoder of plain text, every token of which is learned."""

from __future__ import annotations

from tunesmith_runtime.data.encoding import Encoding
from tunesmith_runtime.data.examples import Turn
from tunesmith_runtime.data.records import PlainText
from tunesmith_runtime.data.text_encoder import TextEncoder


def encode_plain_text(record: PlainText, text: TextEncoder) -> Encoding[list[Turn]]:
    """The text as the answer to nothing but the tokenizer's leading tokens."""
    [ids] = yield from text.ids(record.text)
    return [text.turn(text.leading_ids, ids)]
