"""Rows of sounds with their texts are recognized by their keys, and are never taken for plain text."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith_api.datasets import RowFormat
from tunesmith_runtime.data import formats
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.formats import FORMATS
from tunesmith_runtime.data.records import Media, MediaKind, Transcription
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.train.methods.sft import SFT

SOUND = Media(MediaKind.AUDIO, ("clips/a.wav",))
EXPECTED = Transcription(SOUND, "bonjour")


@pytest.mark.parametrize(
    "row",
    [
        {"audio": "clips/a.wav", "text": "bonjour"},
        {"audio_path": "clips/a.wav", "transcription": "bonjour"},
        {"audio_filepath": "clips/a.wav", "transcript": "bonjour", "language": None},
        {"file_name": "clips/a.wav", "transcription": "bonjour"},
        {"audio": {"path": "clips/a.wav", "bytes": None}, "text": "bonjour"},
    ],
)
def test_every_spelling_is_the_same_record(row: dict[str, Any]) -> None:
    found = formats.detect(row, SFT.learns_from)
    assert found is FORMATS[RowFormat.TRANSCRIPTION]
    assert formats.read(row, found) == EXPECTED
    assert formats.ignored(row, found) == set()


def test_a_row_may_name_its_language() -> None:
    row = {"audio": "clips/a.wav", "text": "bonjour", "language": "fr", "speaker": 7}
    assert formats.read(row, FORMATS[RowFormat.TRANSCRIPTION]) == Transcription(SOUND, "bonjour", "fr")
    assert formats.ignored(row, FORMATS[RowFormat.TRANSCRIPTION]) == {"speaker"}


def test_a_question_about_a_sound_is_no_transcript() -> None:
    row = {"audio": "clips/a.wav", "text": "who speaks?", "answer": "a child"}
    assert formats.detect(row, SFT.learns_from) is FORMATS[RowFormat.VQA]


def test_a_row_without_a_word_is_dropped() -> None:
    row = {"audio": "clips/a.wav", "text": " "}
    assert formats.read(row, FORMATS[RowFormat.TRANSCRIPTION]) is DropReason.EMPTY_ANSWER


def test_a_path_outside_the_folder_is_refused() -> None:
    with pytest.raises(RowError, match=r"audio is '\.\./a\.wav', which is outside the folder"):
        formats.read({"audio": "../a.wav", "text": "a"}, FORMATS[RowFormat.TRANSCRIPTION])
