"""Compressed files: read as their content, and refused where they are damaged, cut or bombs; and files of another kind."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from tests.unit.runtime.data.files.support import COMPRESS, refusal, rows_of, zstd
from tunesmith_runtime.data.files import source

ROW = b'{"text": "a"}\n'
TABLE = pyarrow.table({"text": ["a", "b"]})


def parquet(table: pyarrow.Table = TABLE) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(table, out)
    return out.getvalue()


CONTENT = {
    ".jsonl": ROW + b'{"text": "b"}\n',
    ".json": b'[{"text": "a"}, {"text": "b"}]',
    ".csv": b"text,n\na,1\nb,2\n",
    ".tsv": b"text\tn\na\t1\nb\t2\n",
    ".txt": b"a\nb\n",
    ".parquet": parquet(),
}


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("ending", CONTENT)
def test_each_type_is_read_with_each_compression(tmp_path: Path, ending: str, compression: str) -> None:
    rows = rows_of(tmp_path, f"a{ending}{compression}", COMPRESS[compression](CONTENT[ending]))
    assert [row["text"] for _, row in rows] == ["a", "b"]
    assert [path.name for path in tmp_path.iterdir()] == [f"a{ending}{compression}"]


@pytest.mark.parametrize("compression", [".gz", ".zst"])
def test_streams_one_after_the_other_are_one_file(tmp_path: Path, compression: str) -> None:
    content = COMPRESS[compression](ROW) + COMPRESS[compression](ROW)
    assert len(rows_of(tmp_path, f"a.jsonl{compression}", content)) == 2


@pytest.mark.parametrize("compression", [".gz", ".zst"])
@pytest.mark.parametrize("ending", CONTENT)
def test_a_truncated_stream_is_refused_with_the_line_that_was_reached(
    tmp_path: Path, ending: str, compression: str
) -> None:
    content = COMPRESS[compression](CONTENT[ending] + bytes(range(256)) * 50 if ending == ".txt" else CONTENT[ending])
    failure = refusal(tmp_path, f"a{ending}{compression}", content[: len(content) - 6])
    assert "truncated" in failure.message
    assert failure.hint == "compress the file again, and compare its sha256"


def test_a_line_before_the_damage_is_read_and_the_next_is_named(tmp_path: Path) -> None:
    lines = b"".join(b'{"text": "%d"}\n' % (number * 7919**3) for number in range(200_000))
    content = gzip.compress(lines)
    failure = refusal(tmp_path, "a.jsonl.gz", content[: len(content) // 2])
    line = int(failure.message.split()[2].rstrip(":"))
    assert 50_000 < line < 150_000
    assert "here or later, the gzip stream ends before its end mark" in failure.message


@pytest.mark.parametrize("compression", [".gz", ".zst"])
@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".json", ".txt", ".parquet"])
def test_a_bomb_is_refused_before_it_is_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, compression: str
) -> None:
    monkeypatch.setattr(source, "ANY_RATIO_BYTES", 1 << 16)
    bomb = COMPRESS[compression]((b" " * 65535 + b"\n") * (1 << 9))
    assert len(bomb) * source.MAX_RATIO < 1 << 25
    failure = refusal(tmp_path, f"a{ending}{compression}", bomb)
    assert "as a decompression bomb does" in failure.message
    assert failure.hint == "store the file without compression"


def test_repetitive_text_is_no_bomb(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "a.jsonl.zst", zstd(ROW * 100_000))
    assert len(rows) == 100_000


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.jsonl", ROW)
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "words", "hint"),
    [
        ("a.jsonl", parquet(), "is a Parquet file by its first bytes", "ends in .parquet"),
        ("a.csv", gzip.compress(b"a,b\n"), "is compressed with gzip by its first bytes", "ends in .gz"),
        ("a.txt", zstd(b"a\n"), "is compressed with Zstandard by its first bytes", "ends in .zst"),
        ("a.json", bz2.compress(b"[]"), "is compressed with bzip2", "decompress it"),
        ("a.json", lzma.compress(b"[]"), "is compressed with xz", "decompress it"),
        ("a.csv", zipped(), "is a ZIP archive or an Excel workbook", "save the sheet as CSV"),
        (
            "a.jsonl",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "a pointer of Git LFS",
            "git lfs pull",
        ),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS", "git lfs pull"),
        ("a.parquet", ROW, "is damaged, truncated or not a Parquet file", "compare its sha256"),
        ("a.parquet", parquet()[:-9], "is damaged, truncated or not a Parquet file", "compare its sha256"),
        ("a.parquet", gzip.compress(parquet()), "is compressed with gzip", "ends in .gz"),
        ("a.arrow", parquet(), "is a Parquet file by its first bytes", "ends in .parquet"),
        ("a.parquet", b"", "is empty; expected a Parquet file", None),
        ("a.jsonl.gz", ROW, "is damaged", "does not end in .gz"),
        ("a.jsonl.zst", ROW, "is damaged", "does not end in .zst"),
        ("a.parquet.gz", parquet(), "is damaged", "does not end in .gz"),
        ("a.jsonl.gz", gzip.compress(parquet()), "is a Parquet file by its first bytes", "ends in .parquet"),
    ],
)
def test_a_file_of_another_kind_than_its_name_is_named(
    tmp_path: Path, name: str, content: bytes, words: str, hint: str | None
) -> None:
    failure = refusal(tmp_path, name, content)
    assert words in failure.message
    assert hint is None or hint in (failure.hint or "")
