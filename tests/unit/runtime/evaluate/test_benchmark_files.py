"""A file that trains also tests: benchmarks read every type of data file."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from tunesmith_api.evaljob import Benchmark, Generation
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.evaluate.benchmarks import prepare
from tunesmith_runtime.workdir import Work

ROWS = [{"prompt": f"{number} + 1 =", "completion": f"{number + 1}"} for number in range(10)]


def parquet(rows: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue()


def csv(rows: list[dict[str, Any]]) -> bytes:
    return "".join(["prompt,completion\n", *(f"{row['prompt']},{row['completion']}\n" for row in rows)]).encode()


CONTENT = {
    "test.csv": csv(ROWS),
    "test.parquet": parquet(ROWS),
    "test.jsonl.gz": gzip.compress("\n".join(map(json.dumps, ROWS)).encode()),
    "test.json": json.dumps(ROWS).encode(),
}


def references(folder: Path, files: dict[str, bytes], **dataset: Any) -> list[str]:
    """The reference answers of a benchmark with those files."""
    work = Work(folder)
    place = work.benchmarks / "own"
    place.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (place / name).write_bytes(content)
    uri = f"s3://data/{next(iter(files))}" if len(files) == 1 else "s3://data/bench"
    benchmark = Benchmark.model_validate({"name": "own", "dataset": {"uri": uri, **dataset}})
    task = prepare(benchmark, Generation(), work)
    lines = [
        line
        for subset in task.arguments["subset_list"]
        for line in (Path(task.arguments["local_path"]) / f"{subset}.jsonl").read_text().splitlines()
    ]
    return [json.loads(line)["response"] for line in lines]


@pytest.mark.parametrize("name", CONTENT)
def test_a_benchmark_reads_each_type_of_file(tmp_path: Path, name: str) -> None:
    assert references(tmp_path, {name: CONTENT[name]}) == [row["completion"] for row in ROWS]


def test_a_part_of_a_split_counts_over_all_files(tmp_path: Path) -> None:
    files = {"a.csv": csv(ROWS[:4]), "b.csv": csv(ROWS[4:])}
    assert references(tmp_path, files, split="test[30%:60%]") == ["4", "5", "6"]


def test_a_fault_is_named_by_file_and_row(tmp_path: Path) -> None:
    rows = [*ROWS, {"prompt": "1 + 1 =", "completion": None}]
    with pytest.raises(RunFailure, match=r"test\.parquet row 11: .*s3://data/test\.parquet"):
        references(tmp_path, {"test.parquet": parquet(rows)})


def test_two_files_of_one_subset_are_refused(tmp_path: Path) -> None:
    files = {"a.csv": csv(ROWS), "a.csv.gz": gzip.compress(csv(ROWS))}
    with pytest.raises(RunFailure, match=r"several files of s3://data/bench are of one subset: a\.csv"):
        references(tmp_path, files)
