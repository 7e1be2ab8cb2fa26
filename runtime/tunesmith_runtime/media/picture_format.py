"""The format of a picture by its first bytes: the name and the ending of the file may be wrong or missing."""

from __future__ import annotations

import re
from enum import StrEnum

from tunesmith_runtime.media.picture_error import PictureError, PictureFault


class PictureFormat(StrEnum):
    """Formats that are read, by the names of Pillow."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WEBP"
    GIF = "GIF"
    BMP = "BMP"
    TIFF = "TIFF"
    AVIF = "AVIF"


SAVE_AS = "save the picture as JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"

_BEGINNINGS = (
    (rb"\xff\xd8\xff", PictureFormat.JPEG),
    (rb"\x89PNG\r\n\x1a\n", PictureFormat.PNG),
    (rb"RIFF....WEBP", PictureFormat.WEBP),
    (rb"GIF8[79]a", PictureFormat.GIF),
    (rb"BM", PictureFormat.BMP),
    (rb"II[*+]\0|MM\0[*+]", PictureFormat.TIFF),
)
_FORMATS = tuple((re.compile(beginning, re.DOTALL), format_) for beginning, format_ in _BEGINNINGS)
_SVG = re.compile(rb"\s*(<\?xml|<!--|<!doctype\s+svg|<svg)", re.IGNORECASE)
_HTML = re.compile(rb"\s*<(!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_HEIF = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"mif1", b"msf1"})
_SHOWN_BYTES = 12
_SVG_BYTES = 4096


def format_of(content: bytes) -> PictureFormat:
    """The format of a picture. Raises PictureError for content in another format."""
    content = content.removeprefix(b"\xef\xbb\xbf")
    for beginning, format_ in _FORMATS:
        if beginning.match(content):
            return format_
    brands = _brands(content)
    if brands & {b"avif", b"avis"}:
        return PictureFormat.AVIF
    if brands & _HEIF:
        raise _unknown("is in the format HEIC, which is not read", SAVE_AS)
    if _SVG.match(content) and b"<svg" in content[:_SVG_BYTES].lower():
        raise _unknown("is an SVG drawing, which has no pixels", "render the drawing as PNG")
    if _HTML.match(content):
        raise _unknown("is a web page", "correct the address so that it is that of the picture itself")
    shown = f"is in no format that is read: it begins with {content[:_SHOWN_BYTES]!r}"
    raise _unknown(shown, SAVE_AS)


def _brands(content: bytes) -> set[bytes]:
    """The brands in the first box of a file of the ISO base media format; empty for other content."""
    if content[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(content[:4], "big"), _SVG_BYTES, len(content))
    return {content[8:12], *(content[at : at + 4] for at in range(16, end, 4))}


def _unknown(sentence: str, hint: str) -> PictureError:
    return PictureError(PictureFault.UNKNOWN_FORMAT, sentence, hint)
