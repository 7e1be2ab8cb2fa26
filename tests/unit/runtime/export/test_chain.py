"""fetch, train and export as pods run them: processes over a work directory per pod and a store of local files.

A first job ends after training (`until: train`), as a user applies it who wants to look at the adapter before the merge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import tinymodel
from tests.unit.runtime.train.support import QUICK, Run
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.hashing import spec_hash
from tunesmith_api.run import ModelRole, Outcome, ResolvedModel, RunReport, RunSpec, Store
from tunesmith_runtime import prepare
from tunesmith_runtime.rundirectory import RunRecord
from tunesmith_runtime.workdir import Work

VERBS = ("fetch", "train", "export")


def job(folder: Path, model: Path, until: str = "export") -> RunSpec:
    """A FineTuneJob whose model, data and output are local files."""
    data = folder / "data" / "train.jsonl"
    if not data.exists():
        tinymodel.write_rows(data, tinymodel.rows(32, seed=1))
    spec = {
        "until": until,
        "model": {"uri": f"file://{model}"},
        "datasets": [{"uri": f"file://{data}"}],
        "training": {**QUICK, "maxSteps": 2},
    }
    full = FineTuneJobSpec.model_validate(spec).to_dict()
    return RunSpec(
        kind="FineTuneJob",
        name="tiny",
        namespace="default",
        uid="u",
        spec=full,
        spec_hash=spec_hash("FineTuneJob", full),
        store=Store(uri=f"file://{folder}/store"),
        models={ModelRole.BASE: ResolvedModel(uri=f"file://{model}")},
        output_uri=f"file://{folder}/store/runs/default/tiny",
    )


def chain(spec: RunSpec, work: Path, verbs: Sequence[str] = VERBS) -> list[RunReport]:
    """The reports of verbs in a new pod."""
    work.mkdir()
    reports = []
    for verb in verbs:
        log = work.parent / f"{work.name}-{verb}.termination"
        process = Run(spec, Work(work)).start(verb, OMP_NUM_THREADS="1", TUNESMITH_TERMINATION_LOG=str(log))
        printed, _ = process.communicate()
        assert process.returncode == 0, printed
        reports.append(RunReport.model_validate_json(log.read_bytes()))
    return reports


def stored(folder: Path) -> dict[str, bytes]:
    """Path and content of all files in the store."""
    root = folder / "store"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@dataclass(frozen=True)
class Finished:
    """A job that trained, and the same job applied again until export."""

    folder: Path
    spec: RunSpec
    trained: list[RunReport]
    """Reports of the first pod: fetch, train."""
    after_training: dict[str, bytes]
    """The store between the pods."""
    exported: list[RunReport]
    """Reports of the second pod: fetch, train, export."""


@pytest.fixture(scope="module")
def first(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A finished chain."""
    folder = tmp_path_factory.mktemp("chain")
    trained = chain(job(folder, tiny, until="train"), folder / "work-train", VERBS[:2])
    between = stored(folder)
    spec = job(folder, tiny)
    return Finished(folder, spec, trained, between, chain(spec, folder / "work-export"))


def test_fetch_train_and_export_finish_a_run(first: Finished) -> None:
    reports = [*first.trained, *first.exported]
    assert [report.outcome for report in reports] == [Outcome.SUCCEEDED] * 5
    run_uri = reports[-1].run_uri
    assert run_uri
    record = RunRecord.model_validate_json((Path(run_uri.removeprefix("file://")) / "run.json").read_bytes())
    assert [artifact.name for artifact in record.artifacts] == ["adapter", "merged"]
    assert reports[-1].artifacts == record.artifacts
    assert reports[-1].metrics
    assert reports[-1].metrics.steps == 2


def test_a_job_until_training_that_is_applied_again_until_export_merges_without_training_again(first: Finished) -> None:
    trained, again = first.trained[-1], first.exported[1]
    assert [artifact.name for artifact in trained.artifacts or []] == ["adapter"]
    assert again == trained, "artifact, metrics and elapsed time are those of the first pod"
    after = stored(first.folder)
    assert {path: after[path] for path in first.after_training} == first.after_training
    new = {path.split("/")[4] for path in after.keys() - first.after_training.keys()}
    assert {name.split("-")[0] for name in new} == {"merged", "run.json", "report.html", "loss.png"}
    assert not (first.folder / "work-export" / "examples").exists(), "rows were encoded again"


@pytest.mark.parametrize("until", ["estimate", "data"])
def test_a_job_that_ends_before_training_leaves_nothing_in_the_store(tiny: Path, tmp_path: Path, until: str) -> None:
    report = Run(job(tmp_path, tiny, until), Work(tmp_path / "work")).do(prepare.run)
    assert report.outcome is Outcome.SUCCEEDED
    assert report.estimate is not None
    assert report.rows is not None
    assert report.rows.kept == 32
    assert stored(tmp_path) == {}


def test_an_equal_job_in_another_pod_adopts_the_run_without_work(first: Finished) -> None:
    again = chain(first.spec, first.folder / "work-2")
    assert [report.outcome for report in again] == [Outcome.ADOPTED] * 3
    assert again[-1].artifacts == first.exported[-1].artifacts
