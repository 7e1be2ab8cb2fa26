"""A disk that is too small is refused before download and training, and a disk that may suffice is not."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tests import tinymodel
from tests.unit.runtime.fetch.support import MODEL, ROWS, Fetcher, names
from tests.unit.runtime.train.support import make_run
from tunesmith_api.failures import FailureClass
from tunesmith_api.quantities import bytes_of
from tunesmith_api.run import Outcome, Store
from tunesmith_runtime import disk_space as room
from tunesmith_runtime import export, train
from tunesmith_runtime.disk_space import check_room, extra_bytes, extra_bytes_of, used
from tunesmith_runtime.errors import RunFailure

GIGA = 10**9
Usage = namedtuple("Usage", "total used free")
counts = some.integers(0, 10**12)


def has_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: Usage(10**15, 0, free))


def test_full_tuning_needs_its_state_and_an_adapter_the_merged_copy() -> None:
    assert extra_bytes(8 * GIGA, 8 * GIGA, number=2, merge=False) == 96 * GIGA
    assert extra_bytes(8 * GIGA, GIGA // 100, number=2, merge=True) == 16 * GIGA + GIGA // 25
    assert extra_bytes(8 * GIGA, GIGA // 100, number=2, merge=False) == GIGA // 100 * 12


@given(parameters=counts, stored=some.sampled_from([2, 4]), result=some.sampled_from([2, 4]), full=some.booleans())
def test_the_estimate_by_file_size_never_exceeds_the_need(
    parameters: int, stored: int, result: int, full: bool
) -> None:
    for merge in (True, False):
        exact = extra_bytes(parameters, parameters if full else 0, result, merge and not full)
        assert extra_bytes_of(parameters * stored, full, merge) <= exact


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        (5, 5),
        ("5", 5),
        ("5k", 5000),
        ("1.5G", 1500000000),
        ("2Gi", 2 << 30),
        ("3Ki", 3072),
        ("500m", 0),
        ("1Pi", 1 << 50),
    ],
)
def test_a_quantity_is_read_as_kubernetes_does(quantity: str | int, expected: int) -> None:
    assert bytes_of(quantity) == expected


def test_the_smaller_of_disk_and_limit_counts_and_both_numbers_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").write_bytes(b"x" * 1000)
    (tmp_path / "link").symlink_to(tmp_path / "there")
    assert used(tmp_path) == 1000
    has_free(monkeypatch, 5 * GIGA)
    for limit in (None, "0", "6G"):
        check_room(tmp_path, limit, 5 * GIGA, "it")
    with pytest.raises(RunFailure, match=r"it takes 5\.1 GB more, and .* has 5\.0 GB free") as failure:
        check_room(tmp_path, "6G", 51 * GIGA // 10, "it")
    assert failure.value.failure is FailureClass.DISK_FULL
    check_room(tmp_path, "2k", 1000, "it")
    with pytest.raises(RunFailure, match=r"resources\.ephemeralStorage 2k leaves 0\.0 GB free"):
        check_room(tmp_path, "2k", 1001, "it")
    with pytest.raises(RunFailure, match="leaves"):
        check_room(tmp_path, "500", 1, "it")


@pytest.mark.parametrize("spec", [{}, {"tuner": "full"}, {"export": {"merge": False}}])
def test_a_job_whose_results_cannot_fit_is_refused_before_the_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: dict[str, Any]
) -> None:
    fetcher = Fetcher(Store(uri=f"file://{tmp_path}/store"), tmp_path)
    job = fetcher.job(fetcher.put("m", MODEL), fetcher.put("data", {"train.jsonl": ROWS}), **spec)
    results = extra_bytes_of(
        len(MODEL["model.safetensors"]), full=spec.get("tuner") == "full", merge="export" not in spec
    )
    needed = sum(map(len, MODEL.values())) + len(ROWS) + results
    has_free(monkeypatch, needed - 1)
    with pytest.raises(RunFailure, match=r"model .*, data .*, results .* takes") as failure:
        fetcher.fetch(job)
    assert failure.value.failure is FailureClass.DISK_FULL
    assert names(tmp_path / "pod-1") == set()
    has_free(monkeypatch, needed)
    assert fetcher.fetch(job)[0].outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize("spec", [{}, {"tuner": "full"}, {"export": {"merge": False}}])
def test_before_the_first_step_the_disk_must_hold_checkpoint_and_results(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, spec: dict[str, Any]
) -> None:
    run = make_run(tmp_path, tiny, tinymodel.rows(16), {"epochs": 1}, **spec)
    asked: list[int] = []
    monkeypatch.setattr("tunesmith_runtime.train.course.check_room", lambda *given: asked.append(given[2]))
    run.do(train.run)
    run.do(export.run)
    artifact = run.work.run / ("model" if "tuner" in spec else "adapter")
    made = [artifact, run.work.run / "merged"] if not spec else [artifact]
    weights = sum(path.stat().st_size for folder in made for path in folder.glob("*.safetensors"))
    (needed,) = asked
    assert weights - 20_000 <= needed if not spec else weights < needed
    again = make_run(tmp_path / "again", tiny, tinymodel.rows(16), {"epochs": 1}, **spec)
    monkeypatch.undo()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**15, 0, needed - 1))
    with pytest.raises(RunFailure) as failure:
        again.do(train.run)
    assert failure.value.failure is FailureClass.DISK_FULL
