"""Data of a spec in object storage and local files: single files, folders, wildcards, subsets and splits."""

from __future__ import annotations

import gzip

import pytest

from tests.unit.runtime.fetch.support import MODEL, ROWS, Fetcher
from tunesmith_api.failures import FailureClass
from tunesmith_runtime.data.dataset_rows import dataset_rows
from tunesmith_runtime.data.media_files import MediaFiles
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.workdir import Work

CSV = b"prompt,completion\na,b\nc,null\n"


def files_of(work: Work, data: str) -> list[tuple[str, str]]:
    """Local name and URI, relative to the data, of each file of rows."""
    return [(file.path, file.uri.removeprefix(data)) for file in work.data_files()]


def test_a_local_copy_keeps_the_type_of_its_file(fetcher: Fetcher) -> None:
    model = fetcher.put("base", MODEL)
    content = {
        "a.csv": CSV,
        "b.jsonl.gz": gzip.compress(ROWS),
        "c/train.TSV": b"prompt\tcompletion\na\tb\n",
        "rows": ROWS,
    }
    data = fetcher.put("data", content)
    _, work = fetcher.fetch(fetcher.job(model, *(f"{data}/{name}" for name in content)))
    assert files_of(work, data) == [
        ("00.csv", "/a.csv"), ("01.jsonl.gz", "/b.jsonl.gz"), ("02.tsv", "/c/train.TSV"), ("03.jsonl", "/rows"),
    ]  # fmt: skip
    rows = [row for _, _, row in dataset_rows(work.data, work.data_files(), None)]
    pair = {"prompt": "a", "completion": "b"}
    assert rows == [pair, {"prompt": "c", "completion": "null"}, pair, pair, pair]


def test_a_wildcard_names_files_of_one_folder_or_of_all(fetcher: Fetcher) -> None:
    model = fetcher.put("base", MODEL)
    names = ["a.jsonl", "b.jsonl", "b.jsonl.gz", "c/d.jsonl", "e.csv"]
    data = fetcher.put("data", {name: gzip.compress(ROWS) if name.endswith("gz") else ROWS for name in names})
    for glob, found in {
        "*.jsonl": ["a.jsonl", "b.jsonl"],
        "*.jsonl*": ["a.jsonl", "b.jsonl", "b.jsonl.gz"],
        "**/*.jsonl": ["a.jsonl", "b.jsonl", "c/d.jsonl"],
        "c/*": ["c/d.jsonl"],
        "*": ["a.jsonl", "b.jsonl", "b.jsonl.gz"],
    }.items():
        _, work = fetcher.fetch(fetcher.job(model, f"{data}/{glob}"))
        assert [file.uri.removeprefix(f"{data}/") for file in work.data_files()] == found


def test_a_file_that_a_wildcard_does_not_match_changes_no_run(fetcher: Fetcher) -> None:
    model, data = fetcher.put("base", MODEL), fetcher.put("data", {"a.jsonl": ROWS})
    spec = fetcher.job(model, f"{data}/*.jsonl")
    first = fetcher.prepare(spec)[0].run_uri
    fetcher.put("data", {"other.csv": CSV})
    assert fetcher.prepare(spec)[0].run_uri == first
    fetcher.put("data", {"b.jsonl": ROWS})
    assert fetcher.prepare(spec)[0].run_uri != first


def test_a_wildcard_without_a_match_is_refused_with_what_there_is(fetcher: Fetcher) -> None:
    model, data = fetcher.put("base", MODEL), fetcher.put("data", {"a.jsonl": ROWS})
    with pytest.raises(RunFailure, match=r"no object matches; .*/data has a\.jsonl") as failure:
        fetcher.prepare(fetcher.job(model, f"{data}/*.csv"))
    assert failure.value.failure is FailureClass.DATASET_NOT_FOUND


def test_a_folder_is_read_in_one_type(fetcher: Fetcher) -> None:
    model = fetcher.put("base", MODEL)
    data = fetcher.put("data", {"a.csv": CSV, "b.csv": CSV, "notes.txt": b"x\n", "info.json": b"{}"})
    _, work = fetcher.fetch(fetcher.job(model, data))
    assert files_of(work, data) == [("00.csv", "/a.csv"), ("01.csv", "/b.csv")]


def test_a_split_of_a_folder_follows_from_names_and_an_unknown_split_is_refused_before_a_device_is_taken(
    fetcher: Fetcher,
) -> None:
    model = fetcher.put("base", MODEL)
    data = fetcher.put("data", {"train.csv": CSV, "test.csv": CSV})
    spec = fetcher.spec("FineTuneJob", model, {"datasets": [{"uri": data, "split": "test[:1]"}]})
    _, work = fetcher.fetch(spec)
    assert files_of(work, data) == [("00.csv", "/test.csv")]
    assert len(list(dataset_rows(work.data, work.data_files(), "test[:1]"))) == 1
    with pytest.raises(RunFailure, match="has no split dev; it has test, train") as failure:
        fetcher.prepare(fetcher.spec("FineTuneJob", model, {"datasets": [{"uri": data, "split": "dev"}]}))
    assert failure.value.failure is FailureClass.DATASET_NOT_FOUND
    assert failure.value.hint == "set split to one of test, train"


def test_two_parts_of_one_split_are_two_data_sets(fetcher: Fetcher) -> None:
    model = fetcher.put("base", MODEL)
    data = fetcher.put("data", {"rows.jsonl": ROWS * 10})
    datasets = [{"uri": f"{data}/rows.jsonl", "split": split} for split in ("train[:90%]", "train[90%:]")]
    _, work = fetcher.fetch(fetcher.spec("FineTuneJob", model, {"datasets": datasets}))
    counts = [
        len(list(dataset_rows(work.data, [file], datasets[file.dataset or 0]["split"]))) for file in work.data_files()
    ]
    assert counts == [9, 1]


def test_several_validation_data_sets_are_fetched_in_their_order(fetcher: Fetcher) -> None:
    model = fetcher.put("base", MODEL)
    data = fetcher.put("data", {name: CSV for name in ("train.csv", "a.csv", "b.csv")})
    datasets, held_out = ([{"uri": f"{data}/{name}.csv"} for name in names] for names in (["train"], ["a", "b"]))
    spec = {"datasets": datasets, "validation": {"datasets": held_out}}
    _, work = fetcher.fetch(fetcher.spec("FineTuneJob", model, spec))
    found = [(file.uri.removeprefix(f"{data}/"), file.dataset, file.validation) for file in work.data_files()]
    assert found == [("train.csv", 0, 0), ("a.csv", None, 0), ("b.csv", None, 1)]


def test_a_single_file_has_no_subset(fetcher: Fetcher) -> None:
    model, data = fetcher.put("base", MODEL), fetcher.put("data", {"a.csv": CSV})
    with pytest.raises(RunFailure, match=r"a\.csv is a single file, which has no subset main") as failure:
        fetcher.prepare(fetcher.spec("FineTuneJob", model, {"datasets": [{"uri": f"{data}/a.csv", "subset": "main"}]}))
    assert failure.value.hint == "remove subset, or name the folder of the files"


def test_empty_files_are_refused_before_a_device_is_taken(fetcher: Fetcher) -> None:
    model, data = fetcher.put("base", MODEL), fetcher.put("data", {"a.csv": b"", "b.csv": b""})
    with pytest.raises(RunFailure, match="2 files, all empty") as failure:
        fetcher.prepare(fetcher.job(model, data))
    assert failure.value.failure is FailureClass.EMPTY_DATASET


def test_a_benchmark_takes_a_split_of_a_folder(fetcher: Fetcher) -> None:
    model = fetcher.put("base", MODEL)
    data = fetcher.put("data", {"main/train.csv": CSV, "main/test.csv": CSV, "other/test.csv": CSV})
    dataset = {"uri": data, "subset": "main", "split": "test"}
    _, work = fetcher.fetch(fetcher.spec("EvalJob", model, {"benchmarks": [{"name": "own", "dataset": dataset}]}))
    assert [path.name for path in (work.benchmarks / "own").iterdir()] == ["main--test.csv"]


PICTURES = {"rows/train.jsonl": ROWS, "rows/a.png": b"a", "captions/b.png": b"b", "captions/b.txt": b"a caption"}


@pytest.mark.parametrize(
    ("place", "files", "root", "paths"),
    [
        ("/rows/train.jsonl", {"train.jsonl": ("/rows/train.jsonl", None)}, "/rows", {"train.jsonl", "a.png"}),
        ("/**/*.jsonl", {"rows--train.jsonl": ("/rows/train.jsonl", None)}, "", {*PICTURES}),
        ("/captions", {"b.txt": ("/captions/b.txt", "b.png")}, "/captions", {"b.png", "b.txt"}),
    ],
)
def test_of_an_evaluation_with_pictures_the_rows_are_fetched_and_the_pictures_listed(
    local: Fetcher, place: str, files: dict[str, tuple[str, str | None]], root: str, paths: set[str]
) -> None:
    data = local.put("data", PICTURES)
    work = evaluate_pictures(local, f"{data}{place}")[1]
    found = work.benchmark_files("own")
    assert {file.path: (file.uri.removeprefix(data), file.caption_of) for file in found} == files
    assert {path.name for path in (work.benchmarks / "own").iterdir()} == {*files}
    assert MediaFiles.read(work.benchmark_media("own")) == MediaFiles(f"{data}{root}", frozenset(paths))


@pytest.mark.parametrize("place", ["/rows/train.jsonl", "/rows"])
def test_another_picture_is_another_evaluation(local: Fetcher, place: str) -> None:
    uri = f"{local.put('data', PICTURES)}{place}"
    first = evaluate_pictures(local, uri)[0]
    assert evaluate_pictures(local, uri)[0] == first
    local.put("data", {"rows/a.png": b"c"})
    assert evaluate_pictures(local, uri)[0] != first


def test_other_files_beside_a_file_of_rows_change_no_evaluation(local: Fetcher) -> None:
    uri = f"{local.put('data', PICTURES)}/rows/train.jsonl"
    first = evaluate_pictures(local, uri)[0]
    local.put("data", {"rows/report.json": b"{}"})
    assert evaluate_pictures(local, uri)[0] == first


def evaluate_pictures(fetcher: Fetcher, uri: str) -> tuple[str | None, Work]:
    """Fetch an evaluation on rows with pictures; the run's folder and the work directory."""
    benchmarks = [{"name": "own", "dataset": {"uri": uri, "type": "vqa"}}]
    report, work = fetcher.fetch(fetcher.spec("EvalJob", fetcher.put("base", MODEL), {"benchmarks": benchmarks}))
    return report.run_uri, work
