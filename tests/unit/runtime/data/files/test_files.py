"""File types by name, and the promise of all of them: any bytes are rows or a BadRow."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.runtime.data.files.support import zstd
from tests.unit.runtime.data.files.test_source import CONTENT, parquet
from tunesmith_api.failures import FailureClass
from tunesmith_runtime.data.files import FILE_TYPES, ending_of, of_one_type, read_rows, stem_of, type_of
from tunesmith_runtime.errors import RunFailure


@pytest.mark.parametrize(
    ("name", "kind", "stem", "ending"),
    [
        ("train.jsonl", "JSON lines", "train", ".jsonl"),
        ("train.ndjson.gz", "JSON lines", "train", ".jsonl.gz"),
        ("a/b.c/Train.CSV.ZST", "CSV", "Train", ".csv.zst"),
        ("part-0.snappy.parquet", "Parquet", "part-0.snappy", ".parquet"),
        ("data.json", "JSON", "data", ".json"),
        ("data-00000-of-00001.arrow", "Arrow", "data-00000-of-00001", ".arrow"),
        ("notes.md", None, "notes", ".jsonl"),
        ("train", None, "train", ".jsonl"),
        (".jsonl", None, ".jsonl", ".jsonl"),
        ("train.gz", None, "train", ".jsonl.gz"),
    ],
)
def test_the_type_follows_from_the_ending_of_the_name(name: str, kind: str | None, stem: str, ending: str) -> None:
    found = type_of(name)
    assert (found and found.name, stem_of(name), ending_of(name)) == (kind, stem, ending)


def test_a_folder_has_the_rows_of_one_type() -> None:
    names = ["README.md", "a.csv", "a.json", "b.jsonl.gz", "c.jsonl", "d.parquet"]
    assert of_one_type(names) == ["b.jsonl.gz", "c.jsonl"]
    assert of_one_type(names[:3]) == ["a.csv"]
    assert of_one_type(["info.json", "b.parquet"]) == ["b.parquet"]
    assert of_one_type(["README.md"]) == []


def test_every_ending_has_one_type() -> None:
    endings = [ending for each in FILE_TYPES.values() for ending in each.endings]
    assert len(endings) == len(set(endings))


NAMES = [f"a{ending}{compression}" for ending in (*CONTENT, ".arrow") for compression in ("", ".gz", ".zst")]


def mangled(content: bytes) -> st.SearchStrategy[bytes]:
    """Content with some bytes replaced, removed or added."""

    def change(edits: list[tuple[int, int, bytes]]) -> bytes:
        made = content
        for place, length, piece in edits:
            place %= len(content)
            made = made[:place] + piece + made[place + length :]
        return made

    return st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 8), st.binary(max_size=8)), max_size=3).map(change)


@pytest.mark.parametrize("name", NAMES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bytes_are_rows_or_a_bad_row(tmp_path: Path, name: str, data: st.DataObject) -> None:
    plain = CONTENT.get(name.removesuffix(".gz").removesuffix(".zst")[1:], parquet())
    compress = {"gz": gzip.compress, "zst": zstd}.get(name.rpartition(".")[2], bytes)
    content = data.draw(
        st.binary(max_size=200)
        | mangled(plain).map(compress)
        | mangled(compress(plain))
        | st.binary(max_size=99).map(compress)
    )
    path = tmp_path / name
    path.write_bytes(content)
    wrong: RunFailure | None = None
    try:
        assert all(isinstance(row, dict) for _, row in read_rows(path, f"s3://data/{name}"))
    except RunFailure as failure:
        wrong = failure
    assert wrong is None or (wrong.failure is FailureClass.BAD_ROW and wrong.message.startswith(name))
