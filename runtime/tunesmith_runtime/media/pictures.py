"""The upright RGB pixels of a picture, from the bytes of its file. Training, evaluation and serving all read with it.

Nothing here changes a global setting of Pillow, so that threads may read pictures at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO

from PIL import ExifTags, Image, ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH, TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from tunesmith_runtime.media.colours import Conversion, in_rgb
from tunesmith_runtime.media.picture_error import PictureError, PictureFault
from tunesmith_runtime.media.picture_format import PictureFormat, format_of


@dataclass(frozen=True)
class PictureLimits:
    """The largest picture that is read. A pixel takes 8 to 21 bytes of memory while it is read, and 4 afterwards."""

    pixels: int = 178_956_970
    """Width times height. The default is the size above which Pillow refuses pictures as decompression bombs."""
    size_bytes: int = 256 << 20
    """Bytes of the file."""


@dataclass(frozen=True)
class Picture:
    """A picture as models receive it, before any resize."""

    pixels: Image.Image
    """In mode RGB, upright, without metadata."""
    conversions: frozenset[Conversion]
    """What was converted. Empty if every pixel is the file's."""


DEFAULT_LIMITS = PictureLimits()

# Image.open would try further decoders, and would warn of large pictures on standard error.
_READERS: Mapping[PictureFormat, Callable[[BytesIO], ImageFile.ImageFile]] = {
    PictureFormat.JPEG: JpegImageFile,
    PictureFormat.PNG: PngImageFile,
    PictureFormat.WEBP: WebPImageFile,
    PictureFormat.GIF: GifImageFile,
    PictureFormat.BMP: BmpImageFile,
    PictureFormat.TIFF: TiffImageFile,
    PictureFormat.AVIF: AvifImageFile,
}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> the operation that makes the pixels upright."""
_UPRIGHT = 1
_SHRINK = "make the picture smaller"


def read_picture(content: bytes, limits: PictureLimits = DEFAULT_LIMITS) -> Picture:
    """Read a picture; of an animation, or of a TIFF of several pages, the first. Raises PictureError, and nothing else.

    The sizes in the header are checked before pixels are decoded.
    """
    _check_bytes(content, limits)
    format_ = format_of(content)
    with _damage(format_):
        image = _READERS[format_](BytesIO(content))
        _check_pixels(image, limits)
        conversions = {Conversion.FIRST_FRAME} if _has_further_frames(image) else set()
        raw_mode = _raw_mode(image)
        stored = _orientation(image) if isinstance(image, TiffImageFile) else None
        image.load()
        orientation = _orientation(image) if stored is None else _UPRIGHT
        pixels, converted = in_rgb(image, raw_mode)
        if orientation in _TURNS:
            pixels = pixels.transpose(_TURNS[orientation])
        if (stored or orientation) in _TURNS:
            conversions.add(Conversion.TURNED)
        return Picture(pixels, converted | conversions)


def _check_bytes(content: bytes, limits: PictureLimits) -> None:
    if not content:
        raise PictureError(PictureFault.EMPTY, "is empty: it has 0 bytes", "replace the picture")
    if len(content) > limits.size_bytes:
        sentence = f"has {len(content):,} bytes; at most {limits.size_bytes:,} are read"
        raise PictureError(PictureFault.TOO_MANY_BYTES, sentence, _SHRINK)


def _check_pixels(image: ImageFile.ImageFile, limits: PictureLimits) -> None:
    sizes = [image.size]
    if isinstance(image, TiffImageFile):  # a tile is decoded as a whole, and may be larger than the picture
        sizes.append((image.tag_v2.get(TILEWIDTH, 0), image.tag_v2.get(TILELENGTH, 0)))
    for width, height in sizes:
        if width * height > limits.pixels:
            raise _too_many_pixels(f"is {width} x {height} pixels; at most {limits.pixels:,} are read")


def _too_many_pixels(sentence: str) -> PictureError:
    return PictureError(PictureFault.TOO_MANY_PIXELS, sentence, _SHRINK)


@contextmanager
def _damage(format_: PictureFormat) -> Iterator[None]:
    """Within the block, turn an error of a decoder into a PictureError."""
    try:
        yield
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_many_pixels("has a frame of too many pixels") from error
    except Exception as error:
        # decoders raise nearly every type for damaged bytes, MemoryError for absurd sizes among them
        words = str(error).partition("\n")[0] or type(error).__name__
        raise PictureError(
            PictureFault.DAMAGED,
            f"is a damaged {format_}, or of a kind that is not read: {words:.100}",
            "save the picture again, or replace it",
        ) from error


def _has_further_frames(image: ImageFile.ImageFile) -> bool:
    return bool(getattr(image, "is_animated", False))


def _raw_mode(image: ImageFile.ImageFile) -> str:
    """The layout of a pixel in the file, such as RGB;16B; empty for formats whose decoder keeps it to itself."""
    arguments = image.tile[0].args if image.tile else None
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _orientation(image: ImageFile.ImageFile) -> int:
    """The EXIF orientation; upright where EXIF data are missing or damaged, as viewers show such pictures."""
    if isinstance(image, TiffImageFile):
        found = image.tag_v2.get(ExifTags.Base.Orientation)
    else:
        found = None
        with suppress(Exception):  # as many types as in `_damage`
            found = image.getexif().get(ExifTags.Base.Orientation)
    return found if isinstance(found, int) and found in _TURNS else _UPRIGHT
