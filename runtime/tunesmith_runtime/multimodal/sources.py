"""The bytes of media: from the folder of the rows, or from a data URI."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass

from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.media.picture_error import PictureError
from tunesmith_runtime.media.pictures import Picture, read_picture

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
        content = decoded(uri) if uri.startswith(DATA) else self.read_bytes(uri)
        if content is None:
            raise RowError(f"names the picture {shown(uri)}, which does not exist", "upload it, or correct its path")
        try:
            return read_picture(content)
        except PictureError as error:
            raise RowError(f"names the picture {shown(uri)}, which {error}", error.hint) from error


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
