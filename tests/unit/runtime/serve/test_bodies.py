from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_runtime.data.json_text import MAX_DEPTH
from tunesmith_runtime.serve.openai import bodies
from tunesmith_runtime.serve.openai.app import Service, create_app
from tunesmith_runtime.serve.openai.bodies import MAX_VALUES, decode_body
from tunesmith_runtime.serve.openai.errors import ApiError

REFUSED = {
    "nothing": (b"", "Expecting value"),
    "a form": (b"model=demo&prompt=x", "Expecting value"),
    "two values": (b"{} {}", "Extra data"),
    "no UTF-8": (b'{"a": "\xff"}', "can't decode byte 0xff"),
    "a surrogate in UTF-8": (b'{"a": "\xed\xa0\xbd"}', "can't decode byte 0xed"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "can't decode byte 0xff"),
    "compressed": (b"\x1f\x8b\x08\x00\x00", "can't decode byte 0x8b"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "BOM"),
    "a control character": (b'{"a": "\x00"}', "Invalid control character"),
    "half of a pair": (rb'{"a": [{"b": "hi \ud83d"}]}', "a[0].b has half of a UTF-16 pair"),
    "the other half": (rb'{"a": "\uDE00 hi"}', "a has half"),
    "half of a pair in a key": (rb'{"a": {"\ud83d": 1}}', "has half"),
    "half of a pair in a key of the body": (rb'{"\ud83d": 1}', "has half"),
    "half of a pair alone": (rb'"\ud83d"', "has half"),
    "halves in the wrong order": (rb'{"a": "\ude00\ud83d"}', "a has half"),
    "not a number": (b'{"a": NaN}', "NaN"),
    "infinity": (b'{"a": -Infinity}', "-Infinity"),
    "a number beyond all floats": (b'{"a": 1e999}', "number"),
    "an integer without end": (b'{"a": ' + b"9" * 10_000 + b"}", "digits"),
    "a key twice": (b'{"model": "a", "model": "b"}', "model"),
    "a key twice below": (b'{"a": [{"b": 1, "b": 1}]}', "b"),
    "half of a pair as a key twice": (rb'{"\ud83d": 1, "\ud83d": 2}', "twice"),
    "lists in lists": (b"[" * 100_000, "deep"),
    "objects in objects": (b'{"a":' * 100_000, "deep"),
    "deep and well-formed": (b"[" * (MAX_DEPTH + 2) + b"]" * (MAX_DEPTH + 2), "deep"),
    "values without end": (b"[" + b"0," * MAX_VALUES + b"0]", "more than 2097152 values"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_malformed_body_is_refused_with_the_reason(case: str) -> None:
    raw, words = REFUSED[case]
    with pytest.raises(ApiError, match=re.escape(words)) as refused:
        decode_body(raw)
    assert refused.value.status == 400
    assert len(json.dumps(refused.value.body(), ensure_ascii=False).encode()) < 1000


def test_nesting_is_accepted_up_to_the_limit() -> None:
    assert decode_body(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)


def test_a_complete_surrogate_pair_is_a_character() -> None:
    assert decode_body(rb'{"a": "\ud83d\ude00"}') == {"a": "\N{GRINNING FACE}"}


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES, st.booleans())
def test_any_json_value_is_read_unchanged(value: Any, ascii_only: bool) -> None:
    assert decode_body(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary(max_size=60) | st.text('{}[]",:\\ud8eE+-0123nulltrue', max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    refused = None
    try:
        decode_body(raw)
    except ApiError as error:
        refused = error
    if refused is not None:
        assert refused.status == 400
        assert json.dumps(refused.body(), ensure_ascii=False).encode()


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_beyond_the_bound_is_refused_while_it_comes(
    declared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "MAX_BODY_BYTES", 1000)
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 100
            yield b" " * 100

    transport = httpx.ASGITransport(app=create_app(Service({"demo": None})))
    headers = {"Content-Length": "10000"} if declared else {}
    async with httpx.AsyncClient(transport=transport, base_url="http://demo") as client:
        answer = await client.post("/v1/completions", content=chunks(), headers=headers)
    assert answer.status_code == 413
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert sent <= (0 if declared else 1100)
