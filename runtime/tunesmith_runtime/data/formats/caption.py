"""A picture and the text that describes it: {"image": "…", "caption": "…"}. The model learns the text after the picture alone."""

from __future__ import annotations

from typing import Any

from tunesmith_api.datasets import RowFormat
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.formats.format import Format
from tunesmith_runtime.data.formats.media import media
from tunesmith_runtime.data.records import Conversation, MediaKind, MultimodalConversation
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.row_fields import has, keys_of, text_of

PICTURES = ("image", "image_path", "file_name")
TEXTS = ("caption", "text")


def read(row: dict[str, Any]) -> MultimodalConversation | DropReason:
    """The picture and its text."""
    picture, text = (next((key for key in keys if has(row, key)), None) for keys in (PICTURES, TEXTS))
    if picture is None or text is None:
        raise RowError(f"has no picture with a text; its keys are {keys_of(row)}; expected {CAPTION.expected}")
    caption = text_of(row, text)
    if not caption.strip():
        return DropReason.EMPTY_ANSWER
    question = [media(row[picture], MediaKind.IMAGE, picture)]
    return MultimodalConversation(
        Conversation([{"role": "user", "content": question}, {"role": "assistant", "content": [caption]}])
    )


CAPTION = Format(
    RowFormat.CAPTION,
    records=frozenset({MultimodalConversation}),
    spellings=tuple((picture, text) for picture in PICTURES for text in TEXTS),
    expected='{"image", "caption"}',
    known=frozenset({*PICTURES, *TEXTS}),
    read=read,
)
