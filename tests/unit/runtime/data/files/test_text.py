"""Encodings: read where the bytes prove them, refused with the line otherwise; never guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.runtime.data.files.support import refusal, rows_of
from tunesmith_runtime.data.files import text

TEXTS = {
    "a.jsonl": '{"text": "héllo 你好 😀"}\n{"text": "b"}\n',
    "a.json": '[{"text": "héllo 你好 😀"}, {"text": "b"}]',
    "a.csv": "text,n\nhéllo 你好 😀,1\nb,2\n",
    "a.txt": "héllo 你好 😀\r\n\nb\n",
}
CHINESE = "训练数据的第一行是一个很长的句子、里面有标点。"


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_text_with_a_byte_order_mark_is_read_in_its_encoding(tmp_path: Path, name: str, encoding: str) -> None:
    rows = rows_of(tmp_path, name, TEXTS[name].encode(encoding))
    assert [row["text"] for _, row in rows] == ["héllo 你好 😀", "b"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_recognized_by_its_zero_bytes(tmp_path: Path, name: str, encoding: str) -> None:
    rows = rows_of(tmp_path, name, TEXTS[name].encode(encoding))
    assert [row["text"] for _, row in rows] == ["héllo 你好 😀", "b"]


@pytest.mark.parametrize(
    ("name", "line"),
    [("a.jsonl", '{"text": "%s"}'), ("a.json", '{"text": "%s"}'), ("a.csv", '"%s",1'), ("a.txt", "%s")],
)
@pytest.mark.parametrize(
    ("encoding", "words"), [("gb18030", CHINESE), ("cp1252", "un café très serré, s'il vous plaît")]
)
def test_another_encoding_is_refused_with_its_line_and_the_command_that_converts_it(
    tmp_path: Path, name: str, line: str, encoding: str, words: str
) -> None:
    first = {"a.jsonl": '{"text": "x"}', "a.json": '{"text": "x"}', "a.csv": "text,n", "a.txt": "x"}[name]
    failure = refusal(tmp_path, name, f"{first}\n{line % words}\n".encode(encoding))
    assert failure.message.startswith(f"{name} line 2: byte ")
    assert "is not UTF-8" in failure.message
    command = {"gb18030": "iconv -f GB18030 -t UTF-8", "cp1252": "iconv -f WINDOWS-1252 -t UTF-8"}[encoding]
    assert command in (failure.hint or "")


def test_a_half_character_at_the_end_is_refused(tmp_path: Path) -> None:
    assert "a.txt line 2: " in refusal(tmp_path, "a.txt", "x\n你".encode()[:-1]).message
    assert "UTF-16" in refusal(tmp_path, "a.txt", "x\ny".encode("utf-16")[:-1]).message
    assert "a.json line 2: " in refusal(tmp_path, "a.json", '{"text":\n "你'.encode()[:-1]).message


def test_a_long_line_of_utf_16_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "MAX_LINE_BYTES", 1 << 12)
    failure = refusal(tmp_path, "a.txt", ("x\n" + "y" * (1 << 12)).encode("utf-16"))
    assert failure.message.startswith("a.txt line 2: is longer than")


def test_a_line_of_a_text_is_a_row(tmp_path: Path) -> None:
    assert rows_of(tmp_path, "a.txt", b"one \n\n \t\n two\r\nthree") == [
        ("line 1", {"text": "one "}), ("line 4", {"text": " two"}), ("line 5", {"text": "three"}),
    ]  # fmt: skip
    assert refusal(tmp_path, "a.txt", b"one\ntw\0o").message.startswith("a.txt line 2: has a NUL character")
