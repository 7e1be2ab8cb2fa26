"""The pictures of rows, as files that are sent to the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path

from tunesmith_runtime.answers.coordinates import Size
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.media.picture_error import PictureError
from tunesmith_runtime.media.picture_format import PictureFormat, format_of
from tunesmith_runtime.media.pictures import Picture, read_picture
from tunesmith_runtime.multimodal.sources import DATA, decoded, shown

ReadBytes = Callable[[str], bytes | None]
"""Returns the content of the object at a URI; None if there is none."""
ENDINGS = {PictureFormat.JPEG: ".jpg", PictureFormat.PNG: ".png", PictureFormat.WEBP: ".webp"}
"""Formats that every engine reads; pictures in others are sent as PNG."""


def nothing(_: str) -> None:
    """Read from a store without objects."""


@dataclass(frozen=True)
class SentPicture:
    """A picture as it is sent."""

    file: Path
    size: Size


@dataclass(frozen=True)
class Pictures:
    """Copies pictures into a folder, under a name that follows from their content."""

    read_bytes: ReadBytes
    folder: Path

    def copy(self, uri: str) -> SentPicture:
        """Copy the picture at a URI, upright and in RGB as a training reads it. Raises RowError where it cannot be read."""
        content = decoded(uri) if uri.startswith(DATA) else self.read_bytes(uri)
        if content is None:
            raise RowError(f"names the picture {shown(uri)}, which does not exist", "upload it, or correct its path")
        try:
            picture = read_picture(content)
        except PictureError as error:
            raise RowError(f"names the picture {shown(uri)}, which {error}", error.hint) from error
        sent, ending = _sent(content, picture)
        file = self.folder / f"{sha256(sent).hexdigest()[:32]}{ending}"
        if not file.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            file.write_bytes(sent)
        return SentPicture(file, Size(*picture.pixels.size))


def _sent(content: bytes, picture: Picture) -> tuple[bytes, str]:
    """The bytes to send, and the ending of their format: those of the file if every reader decodes the same pixels from them."""
    ending = ENDINGS.get(format_of(content))
    if ending and not picture.conversions:
        return content, ending
    buffer = BytesIO()
    picture.pixels.save(buffer, "PNG")
    return buffer.getvalue(), ENDINGS[PictureFormat.PNG]
