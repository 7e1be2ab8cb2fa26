"""The pictures of a request, decoded within limits that bound its memory: clients send damaged files and decompression bombs."""

from __future__ import annotations

from collections.abc import Mapping

from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.media.picture_error import PictureError
from tunesmith_runtime.media.pictures import Picture, PictureLimits, read_picture
from tunesmith_runtime.multimodal.sources import DATA, decoded
from tunesmith_runtime.serve.generation.prompt import Pictures
from tunesmith_runtime.serve.openai.errors import ApiError, invalid

LIMITS = PictureLimits(pixels=32 << 20, size_bytes=20 << 20)
"""Largest picture. It takes up to 700 MB of memory while it is decoded, most files 270 MB."""
MAX_PIXELS = 64 << 20
"""Maximum number of pixels of all pictures of a request, 4 bytes each."""


def read_pictures(images: Mapping[str, str], fetched: Mapping[str, bytes]) -> Pictures:
    """Return the pictures of a request from `images`, place -> URL. `fetched` has the content of those that are not data URLs.

    Raises ApiError for a picture that cannot be read or exceeds the limits.
    """
    found: dict[str, Picture] = {}
    for place, url in images.items():
        if url not in found:
            found[url] = _read(place, url, fetched)
        if (pixels := sum(each.pixels.width * each.pixels.height for each in found.values())) > MAX_PIXELS:
            raise invalid(
                f"Invalid value for 'messages': the images up to {place} have {pixels:,} pixels; at most {MAX_PIXELS:,} are read. "
                "Make the images smaller.",
                "messages",
                "invalid_value",
            )
    return found


def _read(place: str, url: str, fetched: Mapping[str, bytes]) -> Picture:
    try:
        return read_picture(decoded(url) if url.startswith(DATA) else fetched[url], LIMITS)
    except (PictureError, RowError) as error:
        raise refused(place, f"the image {error}", error.hint) from error


def refused(place: str, sentence: str, hint: str | None) -> ApiError:
    """Return the 400 for the image at a place."""
    advice = f" {hint[0].upper()}{hint[1:]}." if hint else ""
    return invalid(f"Invalid value for '{place}': {sentence}.{advice}", place, "invalid_value")
