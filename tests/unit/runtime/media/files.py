"""Encoded pictures for the tests: what Pillow writes, and PNG and TIFF files made chunk by chunk where it can't."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

from PIL import Image

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
GREY, RGB, GREY_ALPHA = 0, 2, 4


def encoded(image: Image.Image, format_: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def corner(width: int = 40, height: int = 20) -> Image.Image:
    """Blue, with red in the quarter at the top left."""
    image = Image.new("RGB", (width, height), BLUE)
    image.paste(RED, (0, 0, width // 2, height // 2))
    return image


def with_orientation(image: Image.Image, value: int, format_: str = "JPEG", **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return encoded(image, format_, exif=exif, **options)


def png(width: int, height: int, bits: int, colours: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def grey_png_of_16_bits(values: list[int], *chunks: tuple[bytes, bytes]) -> bytes:
    return png(len(values), 1, 16, GREY, b"\0" + struct.pack(f">{len(values)}H", *values), *chunks)


def tiff(*tags: tuple[int, int]) -> bytes:
    """A little-endian TIFF with tags whose values are numbers of 32 bits, and no pixels."""
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0)


def pixels_of(image: Image.Image) -> list[Any]:
    return [image.getpixel((x, y)) for y in range(image.height) for x in range(image.width)]
