"""Of large data only the first rows are read, in every type of file, wherever they are."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from collections.abc import Callable

import pyarrow
import pytest
from pyarrow import ipc, parquet

from tests.hub_server import hub
from tests.unit.runtime.fetch.hub_imports import SCHEMES, servers
from tests.unit.runtime.fetch.support import Fetcher
from tests.unit.runtime.fetch.test_assessment import GPU, WORDS
from tunesmith_api.finetunejob_status import Estimate
from tunesmith_runtime.fetch import row_count, row_sample

ROWS = 3000
SAMPLE_BYTES = 20_000


def some_rows(count: int = ROWS, most: int = 24) -> list[dict[str, str]]:
    """Rows of different lengths, which do not repeat each other."""
    choose = random.Random(count)
    words = ["".join(choose.choices("ab", k=choose.randrange(1, most))) for _ in range(count)]
    return [{"prompt": " ".join(word), "completion": "b"} for word in words]


def tokens(rows: list[dict[str, str]]) -> int:
    """Tokens of rows: a word is one, and so is the end."""
    return sum(len(row["prompt"].split()) + 2 for row in rows)


def lines(rows: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def table(rows: list[dict[str, str]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["prompt", "completion"])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def in_parquet(rows: list[dict[str, str]]) -> bytes:
    buffer = io.BytesIO()
    written = pyarrow.Table.from_pylist(rows)
    parquet.write_table(written, buffer, row_group_size=2000, data_page_size=2000, write_batch_size=100)
    return buffer.getvalue()


def in_arrow(rows: list[dict[str, str]]) -> bytes:
    buffer = io.BytesIO()
    written = pyarrow.Table.from_pylist(rows)
    with ipc.new_file(buffer, written.schema) as writer:
        writer.write_table(written, max_chunksize=100)
    return buffer.getvalue()


def in_stream(rows: list[dict[str, str]]) -> bytes:
    buffer = io.BytesIO()
    written = pyarrow.Table.from_pylist(rows)
    with ipc.new_stream(buffer, written.schema) as writer:
        writer.write_table(written, max_chunksize=100)
    return buffer.getvalue()


def compressed(content: bytes) -> bytes:
    return pyarrow.compress(content, "zstd", asbytes=True)


FILES: dict[str, Callable[[list[dict[str, str]]], bytes]] = {
    "rows.jsonl": lines,
    "rows.jsonl.gz": lambda rows: gzip.compress(lines(rows)),
    "rows.json": lambda rows: json.dumps(rows, indent=1).encode(),
    "rows.csv": table,
    "rows.csv.gz": lambda rows: gzip.compress(table(rows)),
    "rows.parquet": in_parquet,
    "rows.arrow": in_arrow,
    "stream.arrow": in_stream,
}


@pytest.fixture(autouse=True)
def bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that the files of these tests exceed."""
    monkeypatch.setattr(row_count, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(row_sample, "SAMPLE_BYTES", SAMPLE_BYTES)


def check(found: Estimate | None, rows: list[dict[str, str]]) -> None:
    """Compare an estimate of sampled rows with all rows."""
    assert found is not None
    assert found.sampled is True
    assert found.rows == pytest.approx(len(rows), rel=0.1)
    assert found.tokens == pytest.approx(tokens(rows), rel=0.15)


@pytest.mark.parametrize("name", FILES)
def test_rows_of_every_type_of_file_are_sampled(local: Fetcher, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = some_rows()
    monkeypatch.setattr(row_sample, "SAMPLE_BYTES", min(SAMPLE_BYTES, len(FILES[name](rows)) // 2))
    data = local.put("data", {name: FILES[name](rows)})
    check(local.prepare(local.job(local.put("m", WORDS), data, **GPU))[0].estimate, rows)


def test_zstandard_is_sampled_by_whole_blocks_of_128_kib(local: Fetcher) -> None:
    data = local.put("data", {"rows.jsonl.zst": compressed(lines(some_rows(30_000)))})
    found = local.prepare(local.job(local.put("m", WORDS), data, **GPU))[0].estimate
    assert found is not None
    assert 15_000 < (found.rows or 0) < 33_000


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_of_a_hub_only_the_sampled_part_of_a_file_is_moved(local: Fetcher, quick: None, scheme: str, name: str) -> None:
    rows = some_rows(30_000)
    content = FILES[name](rows)
    with hub({"datasets/org/rows": {f"train/{name}": content}}) as server:
        job = local.job(local.put("m", WORDS), f"{scheme}://org/rows", **GPU)
        job = job.model_copy(update={"hub": servers(scheme, server.url)})
        check(local.prepare(job)[0].estimate, rows)
        assert sum(server.sent.values()) < len(content) / 2


def test_data_sets_are_sampled_in_proportion_and_bounded_by_their_most_rows(local: Fetcher) -> None:
    short, long = some_rows(2000, 8), some_rows(1000, 200)
    data = [local.put("short", {"a.csv": table(short)}), local.put("long", {"a.parquet": in_parquet(long)})]
    model = local.put("m", WORDS)
    check(local.prepare(local.job(model, *data, **GPU, training={"maxLength": 512}))[0].estimate, short + long)
    bounded = [{"uri": data[0], "maxRows": 7}, {"uri": data[1]}]
    job = local.job(model, *data, **GPU).model_copy()
    job = job.model_copy(update={"spec": {**job.spec, "datasets": bounded, "training": {"maxLength": 512}}})
    found = local.prepare(job)[0].estimate
    assert found is not None
    assert found.rows == pytest.approx(7 + len(long), rel=0.1)


def test_files_are_read_one_after_the_other_and_bad_rows_are_not_counted(local: Fetcher) -> None:
    rows = some_rows()
    halves = {"a.jsonl": lines(rows[:10]) + b"broken\n" * 10, "b.jsonl": lines(rows)}
    found = local.prepare(local.job(local.put("m", WORDS), local.put("data", halves), **GPU))[0].estimate
    check(found, rows)


def test_rows_in_batches_that_are_too_large_are_assumed(local: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_sample, "MOST_BYTES", 2000)
    data = local.put("data", {"rows.parquet": in_parquet(some_rows())})
    found = local.prepare(local.job(local.put("m", WORDS), data, **GPU))[0].estimate
    assert found is not None
    assert found.memory is not None
    assert (found.sampled, found.rows) == (True, 3)
