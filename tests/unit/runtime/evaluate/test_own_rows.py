"""Files of rows with pictures become benchmarks of EvalScope."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import tinyvision
from tunesmith_api.evaljob import Benchmark, Generation
from tunesmith_api.failures import FailureClass
from tunesmith_runtime.data.media_files import MediaFiles
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.evaluate.benchmarks import PICTURES, Task, prepare
from tunesmith_runtime.workdir import DataFile, Work

ROOT = "s3://data/own"
STORE = {f"{ROOT}/red.png": tinyvision.picture("red"), f"{ROOT}/part/red.png": tinyvision.picture("red", seed=1)}
ROW = {"image_path": "red.png", "text": "what is it?", "answer": "red"}


def put(work: Work, **files: list[Any] | str) -> None:
    """Write what fetch leaves of files of rows, and of texts that are captions of red.png."""
    found = []
    for name, lines in files.items():
        is_caption = isinstance(lines, str)
        path = f"{name}.txt" if is_caption else f"{name}.jsonl"
        file = work.benchmarks / "own" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(lines if isinstance(lines, str) else "".join(json.dumps(line) + "\n" for line in lines))
        uri = f"{ROOT}/{path.replace('--', '/')}"
        found.append(DataFile(path=path, uri=uri, caption_of="red.png" if is_caption else None))
    work.write_benchmark_files("own", found)
    MediaFiles(ROOT, frozenset(uri.removeprefix(f"{ROOT}/") for uri in STORE)).write(work.benchmark_media("own"))


def make(work: Work, kind: str = "vqa", prompt: str | None = None, **fields: Any) -> Task:
    benchmark = Benchmark.model_validate({"name": "own", "dataset": {"uri": ROOT, "type": kind}, **fields})
    return prepare(benchmark, Generation(system_prompt=prompt), work, STORE.get)


def rows_of(task: Task, subset: str = "default") -> list[dict[str, Any]]:
    lines = (Path(task.arguments["local_path"]) / f"{subset}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def picture_of(row: dict[str, Any]) -> bytes:
    return Path(row["messages"][0]["content"][0]["image"]).read_bytes()


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path)


@pytest.mark.parametrize("kind", ["vqa", "caption", "ocr"])
def test_rows_are_written_with_copies_of_their_pictures(work: Work, kind: str) -> None:
    put(work, rows=[ROW, ROW])
    task = make(work, kind, prompt="One word.")
    assert (task.dataset, task.limit, task.is_own) == (PICTURES[kind], None, True)  # type: ignore[index]
    assert task.arguments["system_prompt"] == "One word."
    assert [picture_of(row) for row in rows_of(task)] == [STORE[f"{ROOT}/red.png"]] * 2


def test_a_path_is_that_of_the_folder_of_its_file_first(work: Work) -> None:
    put(work, **{"part--rows": [ROW]})
    assert picture_of(*rows_of(make(work))) == STORE[f"{ROOT}/part/red.png"]


def test_files_are_subsets_and_a_limit_counts_over_all(work: Work) -> None:
    put(work, a=[ROW] * 3, b=[ROW] * 3)
    task = make(work, limit=4)
    assert [len(rows_of(task, subset)) for subset in task.arguments["subset_list"]] == [3, 1]
    assert make(work, subsets=["b"]).arguments["subset_list"] == ["b"]


def test_captions_in_files_beside_their_pictures_are_one_subset(work: Work) -> None:
    put(work, a="a red\nsquare", b="red")
    (first, second) = rows_of(make(work, "caption"))
    assert (first["references"], second["references"]) == (["a red\nsquare"], ["red"])
    assert first["pictures"] == ["red.png"]


def test_a_broken_picture_is_named_by_file_and_line(work: Work) -> None:
    put(work, rows=[ROW, {**ROW, "image_path": "gone.png"}])
    with pytest.raises(
        RunFailure, match=r"rows\.jsonl line 2: names the file 'gone\.png'.*s3://data/own/rows"
    ) as wrong:
        make(work)
    assert wrong.value.failure is FailureClass.BAD_ROW


def test_a_listed_picture_that_is_gone_is_named_by_file_and_line(work: Work) -> None:
    put(work, rows=[ROW])
    benchmark = Benchmark.model_validate({"name": "own", "dataset": {"uri": ROOT, "type": "vqa"}})
    with pytest.raises(
        RunFailure, match=r"rows\.jsonl line 1: names the picture s3://data/own/red\.png, which does not"
    ):
        prepare(benchmark, Generation(), work)
