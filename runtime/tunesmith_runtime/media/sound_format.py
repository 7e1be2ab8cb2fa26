"""The format of a sound by its first bytes: the name and the ending of the file may be wrong or missing."""

from __future__ import annotations

import re
from enum import StrEnum

from tunesmith_runtime.media.sound_error import SoundError, SoundFault


class SoundFormat(StrEnum):
    """Formats that are read, by the names of FFmpeg's demuxers."""

    WAV = "wav"
    FLAC = "flac"
    MP3 = "mp3"
    OGG = "ogg"
    M4A = "mp4"
    WEBM = "webm"


SAVE_AS = "save the sound as WAV, FLAC, MP3, Ogg, M4A or WebM"

_BEGINNINGS = (
    (rb"RIFF....WAVE", SoundFormat.WAV),
    (rb"fLaC", SoundFormat.FLAC),
    (rb"ID3|\xff[\xe2\xe3\xf2\xf3\xfa\xfb]", SoundFormat.MP3),
    (rb"OggS", SoundFormat.OGG),
    (rb"....ftyp", SoundFormat.M4A),
    (rb"\x1a\x45\xdf\xa3", SoundFormat.WEBM),
)
_FORMATS = tuple((re.compile(beginning, re.DOTALL), format_) for beginning, format_ in _BEGINNINGS)
_HTML = re.compile(rb"\s*<(!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_SHOWN_BYTES = 12


def format_of(content: bytes) -> SoundFormat:
    """The format of a sound. Raises SoundError for content in another format."""
    for beginning, format_ in _FORMATS:
        if beginning.match(content):
            return format_
    if _HTML.match(content):
        hint = "correct the address so that it is that of the sound itself"
        raise SoundError(SoundFault.UNKNOWN_FORMAT, "is a web page", hint)
    sentence = f"is in no format that is read: it begins with {content[:_SHOWN_BYTES]!r}"
    raise SoundError(SoundFault.UNKNOWN_FORMAT, sentence, SAVE_AS)
