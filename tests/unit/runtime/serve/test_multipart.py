"""A form is read as clients write it, byte for byte, and whatever is no form is refused with 400."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_runtime.serve.openai.errors import ApiError
from tunesmith_runtime.serve.openai.multipart import MAX_FIELD_BYTES, MAX_PARTS, parse_form

TYPE = 'multipart/form-data; boundary="B-1"'


def part(name: str, content: bytes, file: str | None = None) -> bytes:
    filename = f'; filename="{file}"' if file else ""
    return f'--B-1\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n\r\n'.encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--B-1--\r\n"


@given(st.binary(max_size=200).filter(lambda content: b"\r\n--B-1" not in content))
def test_a_file_is_the_same_byte_for_byte(content: bytes) -> None:
    body = form(part("model", "démo".encode()), part("file", content, "a.wav"))
    assert parse_form(TYPE, body) == ({"model": "démo"}, {"file": content})


def test_a_file_may_have_headers_of_its_own_and_no_quotes() -> None:
    head = b"--B-1\r\nContent-Type: audio/wav\r\ncontent-disposition: form-data; filename=a.wav; name=file\r\n\r\n"
    assert parse_form("multipart/form-data;boundary=B-1", head + b"abc\r\n--B-1--") == ({}, {"file": b"abc"})


@pytest.mark.parametrize(
    ("content_type", "body", "sentence"),
    [
        ("application/json", b"{}", "must be a form"),
        ("multipart/form-data", form(part("a", b"b")), "with a boundary"),
        ("", b"", "must be a form"),
        (TYPE, b"", "no part of a form"),
        (TYPE, b"abc", "no part of a form"),
        (TYPE, part("file", b"abc", "a.wav"), "cut off"),
        (TYPE, form(b"--B-1\r\nContent-Disposition: form-data\r\n\r\nabc\r\n"), "has no name"),
        (TYPE, form(b"--B-1\r\nabc\r\n"), "has no name"),
        (TYPE, form(part("model", b"a" * (MAX_FIELD_BYTES + 1))), "Invalid value for 'model': at most 65536 bytes"),
        (TYPE, form(*[part("model", b"a")] * (MAX_PARTS + 2)), "too many parts"),
    ],
)
def test_what_is_no_form_is_refused(content_type: str, body: bytes, sentence: str) -> None:
    with pytest.raises(ApiError, match=sentence) as refused:
        parse_form(content_type, body)
    assert refused.value.status == 400


@given(st.binary(max_size=300), st.integers(0, 300))
def test_no_body_raises_another_error(noise: bytes, at: int) -> None:
    body = form(part("model", b"demo"), part("file", b"abc", "a.wav"))
    with suppress(ApiError):
        parse_form(TYPE, body[:at] + noise + body[at:])
