"""fetch, train and export as a pod runs them: three processes over one work directory and a store of local files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests import tinymodel
from tests.unit.runtime.train.support import QUICK, Run
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.hashing import spec_hash
from tunesmith_api.run import ModelRole, Outcome, ResolvedModel, RunReport, RunSpec, Store
from tunesmith_runtime.rundirectory import RunRecord
from tunesmith_runtime.workdir import Work

VERBS = ("fetch", "train", "export")


def job(folder: Path, model: Path) -> RunSpec:
    """A FineTuneJob whose model, data and output are local files."""
    data = tinymodel.write_rows(folder / "data" / "train.jsonl", tinymodel.rows(32, seed=1))
    spec = {
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


@pytest.fixture(scope="module")
def first(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunSpec, list[RunReport]]:
    """A finished chain."""
    folder = tmp_path_factory.mktemp("chain")
    spec = job(folder, tiny)
    return folder, spec, chain(spec, folder / "work-1")


def test_fetch_train_and_export_finish_a_run(first: tuple[Path, RunSpec, list[RunReport]]) -> None:
    _, _, reports = first
    assert [report.outcome for report in reports] == [Outcome.SUCCEEDED] * 3
    run_uri = reports[-1].run_uri
    assert run_uri
    record = RunRecord.model_validate_json((Path(run_uri.removeprefix("file://")) / "run.json").read_bytes())
    assert [artifact.name for artifact in record.artifacts] == ["adapter", "merged"]
    assert reports[-1].artifacts == record.artifacts
    assert reports[-1].metrics
    assert reports[-1].metrics.steps == 2


def test_an_equal_job_in_another_pod_adopts_the_run_without_work(first: tuple[Path, RunSpec, list[RunReport]]) -> None:
    folder, spec, reports = first
    again = chain(spec, folder / "work-2")
    assert [report.outcome for report in again] == [Outcome.ADOPTED] * 3
    assert again[-1].artifacts == reports[-1].artifacts
    assert {path.name for path in (folder / "work-2").iterdir()} == {"fetch.json", "run-spec.json"}


def test_prepare_adopts_the_finished_run_with_all_its_results(
    first: tuple[Path, RunSpec, list[RunReport]],
) -> None:
    folder, spec, reports = first
    (found,) = chain(spec, folder / "work-3", ("prepare",))
    assert found == reports[-1].model_copy(update={"verb": "prepare", "outcome": Outcome.ADOPTED})
