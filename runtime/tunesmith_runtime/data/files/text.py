"""The text of data files: encodings that are read, and lines in bounded memory.

UTF-8 is read with and without a byte order mark, UTF-16 and UTF-32 where a byte order mark or the zero bytes of the first
two characters prove them. No other encoding is guessed: the same bytes are sound text in several, and a wrong guess would be learned.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator

from tunesmith_runtime.data.files.place import Place, bad_row
from tunesmith_runtime.data.files.source import Broken, Source

MAX_LINE_BYTES = 64 << 20
CHUNK_BYTES = 1 << 20

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks. That of UTF-32 begins with that of UTF-16."""


def encoding_of(start: bytes) -> str:
    """The encoding of a text by its first four bytes: what a byte order mark or zero bytes prove, else UTF-8."""
    for mark, name in _MARKS:
        if start.startswith(mark):
            return name
    zeros = [byte == 0 for byte in start[:4]]
    wide = {(False, True, False, True): "utf-16-le", (True, False, True, False): "utf-16-be"}
    return wide.get(tuple(zeros), "utf-8-sig")  # type: ignore[arg-type]


def text_lines(source: Source, too_long: str | None = None) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, text with its line end) for each line.

    Raises RunFailure (BadRow) with file and line for other encodings, a line of more than MAX_LINE_BYTES (`too_long` is the hint),
    and a broken compression.
    """
    number = 1
    with source.open_text() as file:
        try:
            encoding = encoding_of(file.peek(4)[:4])
            lines = _utf8_lines(file) if encoding == "utf-8-sig" else _wide_lines(file, encoding)
            for number, line in enumerate(lines, start=1):
                yield number, line
        except Broken as broken:
            raise bad_row(source.uri, Place(number), f"here or later, {broken}", broken.hint) from broken
        except _BadLine as error:
            raise bad_row(source.uri, Place(error.number), str(error), error.hint or too_long) from error


def text_chunks(source: Source) -> Iterator[str]:
    """Yield the text of a file in pieces of about CHUNK_BYTES. Raises RunFailure (BadRow) as `text_lines` does."""
    number = 1
    with source.open_text() as file:
        decoder = codecs.getincrementaldecoder(encoding_of(file.peek(4)[:4]))()
        try:
            while block := file.read(CHUNK_BYTES):
                piece = decoder.decode(block)
                yield piece
                number += piece.count("\n")
            decoder.decode(b"", final=True)
        except Broken as broken:
            raise bad_row(source.uri, Place(number), f"here or later, {broken}", broken.hint) from broken
        except UnicodeDecodeError as error:
            number += error.object[: error.start].count(b"\n")
            raise bad_row(source.uri, Place(number), *_other_encoding(error)) from error


class _BadLine(ValueError):
    """A line that cannot be read."""

    def __init__(self, number: int, sentence: str, hint: str | None = None) -> None:
        super().__init__(sentence)
        self.number, self.hint = number, hint


def _utf8_lines(file: io.BufferedReader) -> Iterator[str]:
    most = MAX_LINE_BYTES
    for number, line in enumerate(iter(lambda: file.readline(most + 1), b""), start=1):
        if len(line) > most:
            raise _too_long(number)
        try:
            yield line.decode().removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            raise _BadLine(number, *_other_encoding(error)) from error


def _wide_lines(file: io.BufferedReader, encoding: str) -> Iterator[str]:
    """The lines of UTF-16 and UTF-32, of at most a quarter as many characters."""
    most, number = MAX_LINE_BYTES // 4, 0
    text = io.TextIOWrapper(file, encoding=encoding, newline="\n")
    try:
        while line := text.readline(most + 1):
            number += 1
            if len(line) > most:
                raise _too_long(number)
            yield line
    except UnicodeDecodeError as error:
        raise _BadLine(number + 1, f"here or later, the text is not {encoding.upper()}: {error.reason}") from error


def _too_long(number: int) -> _BadLine:
    return _BadLine(number, f"is longer than {MAX_LINE_BYTES >> 20} MiB")


def _other_encoding(error: UnicodeDecodeError) -> tuple[str, str]:
    """Sentence and hint for bytes that are not in the encoding of the file."""
    content: bytes = error.object
    column = error.start - content.rfind(b"\n", 0, error.start)
    if not error.encoding.lower().replace("_", "-").startswith("utf-8"):
        return f"here or later, the text is not {error.encoding.upper()}: {error.reason}", "save the file in UTF-8"
    likely = "GB18030" if _is_paired(content) else "WINDOWS-1252"
    return (
        f"byte {column} is not UTF-8",
        f"convert the file to UTF-8; if it is in {likely}: `iconv -f {likely} -t UTF-8 OLD > NEW`",
    )


def _is_paired(content: bytes) -> bool:
    """Whether all bytes beyond ASCII come in pairs, as those of Chinese text do in GB2312, GBK and mostly GB18030."""
    start = content.rfind(b"\n", 0, 4096) + 1 if len(content) > 4096 else 0
    try:
        text = content[start : start + 4096].decode("gb18030", "ignore" if len(content) > 4096 else "strict")
    except UnicodeDecodeError:
        return False
    wide = [character for character in text if character > "\x7f"]
    return bool(wide) and sum("\u3000" <= character <= "\uffef" for character in wide) >= 0.9 * len(wide)
