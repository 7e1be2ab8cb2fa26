"""Data sets of hubs, by the hubs' own clients against a hub on 127.0.0.1: files of a subset and a split at a commit."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from tests.hub_server import Fault, Hub, Repository, hub
from tests.unit.runtime.fetch.support import MODEL, Fetcher
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import Hub as HubSettings
from tunesmith_api.run import RunSpec, Store
from tunesmith_runtime.data.dataset_rows import dataset_rows
from tunesmith_runtime.errors import RunFailure

CARD = b"""---
configs:
- config_name: main
  data_files:
  - {split: train, path: main/train-*}
  - {split: test, path: main/test-*}
- config_name: socratic
  data_files: socratic/train.jsonl
---
"""


def parquet(*numbers: int) -> bytes:
    out = io.BytesIO()
    rows = [{"prompt": f"{number} + 1 =", "completion": f"{number + 1}"} for number in numbers]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue()


FILES = {
    "README.md": CARD,
    "gsm8k.py": b"raise SystemExit('code of a data set ran')",
    "main/train-00000-of-00002.parquet": parquet(0, 1, 2),
    "main/train-00001-of-00002.parquet": parquet(3, 4),
    "main/test-00000-of-00001.parquet": parquet(5),
    "socratic/train.jsonl": b'{"prompt": "a", "completion": "b"}\n',
}
HUBS = ["hf", "ms"]


@pytest.fixture
def server() -> Iterator[Hub]:
    with hub(
        {"datasets/openai/gsm8k": FILES, "datasets/org/program": {"program.py": b"x", "README.md": b"# x"}}
    ) as running:
        yield running


@pytest.fixture
def fetcher(tmp_path: Path) -> Fetcher:
    return Fetcher(Store(uri=f"file://{tmp_path}/store"), tmp_path)


def job(fetcher: Fetcher, server: Hub, uri: str, **dataset: str) -> RunSpec:
    """The RunSpec of a FineTuneJob with a data set of that hub."""
    model = fetcher.put("base", MODEL)
    spec = fetcher.spec("FineTuneJob", model, {"datasets": [{"uri": uri, **dataset}]})
    endpoints = {"huggingface": [server.url], "modelscope": [server.url]}
    return spec.model_copy(update={"hub": HubSettings.model_validate({"endpoints": endpoints})})


@pytest.mark.parametrize("scheme", HUBS)
def test_the_files_of_a_subset_and_a_split_are_read(fetcher: Fetcher, server: Hub, scheme: str) -> None:
    spec = job(fetcher, server, f"{scheme}://openai/gsm8k", subset="main", split="train[:80%]")
    _, work = fetcher.fetch(spec)
    revision = server.repositories["datasets/openai/gsm8k"].commit if scheme == "hf" else "master"
    assert [(file.path, file.uri) for file in work.data_files()] == [
        (f"0{number}.parquet", f"{scheme}://openai/gsm8k@{revision}/main/train-0000{number}-of-00002.parquet")
        for number in range(2)
    ]
    rows = [row["completion"] for _, _, row in dataset_rows(work.data, work.data_files(), "train[:80%]")]
    assert rows == ["1", "2", "3", "4"]
    assert not any("gsm8k.py" in path and "resolve" in path for path in server.asked)
    assert not any("test-0" in path for path in server.asked)


@pytest.mark.parametrize("scheme", HUBS)
def test_a_changed_data_set_is_a_new_run_and_an_unchanged_one_is_not(
    fetcher: Fetcher, server: Hub, scheme: str
) -> None:
    spec = job(fetcher, server, f"{scheme}://openai/gsm8k", subset="socratic")
    first, again = (fetcher.prepare(spec)[0].run_uri for _ in range(2))
    assert first == again
    server.repositories["datasets/openai/gsm8k"].files["socratic/train.jsonl"] *= 2
    assert fetcher.prepare(spec)[0].run_uri != first


@pytest.mark.parametrize("scheme", HUBS)
@pytest.mark.parametrize(
    ("dataset", "sentence"),
    [
        ({}, "has the subsets main, socratic; one must be named"),
        ({"subset": "math"}, "has no subset math; it has main, socratic"),
        ({"subset": "main", "split": "dev"}, "has no split dev; it has train, test"),
    ],
)
def test_an_unknown_subset_or_split_is_refused_before_a_device_is_taken(
    fetcher: Fetcher, server: Hub, scheme: str, dataset: dict[str, str], sentence: str
) -> None:
    with pytest.raises(RunFailure, match=sentence) as failure:
        fetcher.prepare(job(fetcher, server, f"{scheme}://openai/gsm8k", **dataset))
    assert failure.value.failure is FailureClass.DATASET_NOT_FOUND


@pytest.mark.parametrize("scheme", HUBS)
def test_a_data_set_that_does_not_exist_is_not_found(fetcher: Fetcher, server: Hub, scheme: str) -> None:
    with pytest.raises(RunFailure, match=f"data set {scheme}://openai/nothing") as failure:
        fetcher.prepare(job(fetcher, server, f"{scheme}://openai/nothing"))
    assert failure.value.failure is FailureClass.DATASET_NOT_FOUND
    assert "spec.model" not in (failure.value.hint or "")


def test_the_program_of_a_data_set_is_never_run(fetcher: Fetcher, server: Hub) -> None:
    with pytest.raises(
        RunFailure, match=r"its rows are made by the program program\.py, which is never run"
    ) as failure:
        fetcher.prepare(job(fetcher, server, "hf://org/program"))
    assert failure.value.hint == (
        "set uri to hf://org/program@refs/convert/parquet, where Hugging Face keeps Parquet copies of the rows"
    )


@pytest.mark.parametrize("scheme", HUBS)
def test_a_file_that_differs_from_the_listing_is_refused(fetcher: Fetcher, server: Hub, scheme: str) -> None:
    content = FILES["socratic/train.jsonl"]
    server.faults.append(Fault("socratic", content=content.replace(b"a", b"z")))
    with pytest.raises(RunFailure, match=r"socratic/train\.jsonl") as failure:
        fetcher.fetch(job(fetcher, server, f"{scheme}://openai/gsm8k", subset="socratic"))
    assert failure.value.failure is FailureClass.HUB_CORRUPT


@pytest.mark.parametrize("scheme", HUBS)
def test_the_next_server_is_used_where_one_does_not_answer(fetcher: Fetcher, server: Hub, scheme: str) -> None:
    spec = job(fetcher, server, f"{scheme}://openai/gsm8k", subset="socratic")
    with hub({}) as empty:
        endpoints = {"huggingface": [empty.url, server.url], "modelscope": [empty.url, server.url]}
        spec = spec.model_copy(update={"hub": HubSettings.model_validate({"endpoints": endpoints})})
        _, work = fetcher.fetch(spec)
    assert [json.loads(line)["completion"] for line in (work.data / "00.jsonl").read_text().splitlines()] == ["b"]


def test_the_parquet_copies_of_a_hub_are_read(fetcher: Fetcher, server: Hub) -> None:
    copies = {"main/partial-train/0000.parquet": parquet(0), "main/test/0000.parquet": parquet(1)}
    server.repositories["datasets/org/program"] = Repository(copies)
    _, work = fetcher.fetch(job(fetcher, server, "hf://org/program@refs/convert/parquet", split="train"))
    assert [file.uri.rpartition("@")[2].partition("/")[2] for file in work.data_files()] == [
        "main/partial-train/0000.parquet"
    ]


@pytest.mark.parametrize("scheme", HUBS)
def test_a_benchmark_reads_the_test_split_of_a_hub(fetcher: Fetcher, server: Hub, scheme: str) -> None:
    model = fetcher.put("base", MODEL)
    dataset = {"uri": f"{scheme}://openai/gsm8k", "subset": "main"}
    spec = fetcher.spec("EvalJob", model, {"benchmarks": [{"name": "own", "dataset": dataset}]})
    endpoints = {"huggingface": [server.url], "modelscope": [server.url]}
    _, work = fetcher.fetch(spec.model_copy(update={"hub": HubSettings.model_validate({"endpoints": endpoints})}))
    assert [path.name for path in (work.benchmarks / "own").iterdir()] == ["main--test-00000-of-00001.parquet"]


def test_a_gated_data_set_is_refused_with_the_fix(
    fetcher: Fetcher, server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    server.repositories["datasets/openai/gsm8k"] = Repository(dict(FILES), needs_token="hf_secret")
    with pytest.raises(RunFailure, match="gated") as failure:
        fetcher.prepare(job(fetcher, server, "hf://openai/gsm8k", subset="main"))
    assert failure.value.failure is FailureClass.HUB_FORBIDDEN
