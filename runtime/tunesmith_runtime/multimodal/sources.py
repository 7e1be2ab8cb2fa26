"""The bytes of media: from the folder of the rows, or from a data URI."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.media.picture_error import PictureError
from tunesmith_runtime.media.pictures import Picture, read_picture
from tunesmith_runtime.media.sound_error import SoundError
from tunesmith_runtime.media.sounds import Sound, read_sound

Read = TypeVar("Read")

DATA = "data:"
SHOWN, SHOWN_DATA = 120, 40
"""Characters of a URI that a message has."""


@dataclass(frozen=True)
class MediaSource:
    """Reads media by their URIs."""

    read_bytes: Callable[[str], bytes | None]
    """Returns the content of an object; None if there is none."""

    def picture(self, uri: str) -> Picture:
        """Return the pixels of a picture. Raises RowError where it is missing or cannot be read."""
        return self._read(uri, "picture", read_picture)

    def sound(self, uri: str, rate: int) -> Sound:
        """Return a sound at `rate` samples a second. Raises RowError where it is missing or cannot be read."""
        return self._read(uri, "sound", partial(read_sound, rate=rate))

    def _read(self, uri: str, kind: str, read: Callable[[bytes], Read]) -> Read:
        content = decoded(uri) if uri.startswith(DATA) else self.read_bytes(uri)
        if content is None:
            raise RowError(f"names the {kind} {shown(uri)}, which does not exist", "upload it, or correct its path")
        try:
            return read(content)
        except (PictureError, SoundError) as error:
            raise RowError(f"names the {kind} {shown(uri)}, which {error}", error.hint) from error


def shown(uri: str) -> str:
    """Return a URI for a message: the end of a long path, the beginning of a data URI."""
    if uri.startswith(DATA):
        return f"{uri:.{SHOWN_DATA}}"
    return uri if len(uri) <= SHOWN else f"…{uri[-SHOWN:]}"


def decoded(uri: str) -> bytes:
    """Return the content of a data URI (RFC 2397) in base64. Raises RowError."""
    header, comma, text = uri.partition(",")
    if not comma or not header.endswith(";base64"):
        raise RowError(f"names {shown(uri)}, which is no data URI in base64", "write data:image/png;base64,…")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RowError(f"names {shown(uri)}, whose base64 is damaged: {error}", "encode the picture again") from error
