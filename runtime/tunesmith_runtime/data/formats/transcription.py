"""A sound and the text that is spoken in it: {"audio": "…", "text": "…", "language": "fr"}, for speech models."""

from __future__ import annotations

from typing import Any

from tunesmith_api.datasets import RowFormat
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.formats.format import Format
from tunesmith_runtime.data.formats.media import media
from tunesmith_runtime.data.records import MediaKind, Transcription
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.row_fields import has, keys_of, text_of

SOUNDS = ("audio", "audio_path", "audio_filepath")
TEXTS = ("text", "transcription", "transcript")
FILE = ("file_name", "transcription")
"""Keys of a folder of sounds on a hub."""
LANGUAGE = "language"


def read(row: dict[str, Any]) -> Transcription | DropReason:
    """The sound, its text and, where the row names it, the language."""
    sound, text = (next((key for key in keys if has(row, key)), None) for keys in ((*SOUNDS, FILE[0]), TEXTS))
    if sound is None or text is None:
        raise RowError(f"has no sound with a text; its keys are {keys_of(row)}; expected {TRANSCRIPTION.expected}")
    spoken = text_of(row, text)
    if not spoken.strip():
        return DropReason.EMPTY_ANSWER
    language = text_of(row, LANGUAGE) if has(row, LANGUAGE) else None
    return Transcription(media(row[sound], MediaKind.AUDIO, sound), spoken, language)


TRANSCRIPTION = Format(
    RowFormat.TRANSCRIPTION,
    records=frozenset({Transcription}),
    spellings=(*((sound, text) for sound in SOUNDS for text in TEXTS), FILE),
    expected='{"audio", "text"}',
    known=frozenset({*SOUNDS, *TEXTS, FILE[0], LANGUAGE}),
    read=read,
)
