"""Export compares the reloaded weights of every tuner with the model that was trained."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import tinymodel
from tests.unit.runtime.train.support import Run, make_run
from tunesmith_api.compatibility import available
from tunesmith_api.failures import FailureClass
from tunesmith_runtime import export, train
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.export.reload import check_reloaded
from tunesmith_runtime.train import course
from tunesmith_runtime.train.models.files import load_model
from tunesmith_runtime.train.models.logits import TOKENS, record_logits
from tunesmith_runtime.train.training_result import read_result

OPTIONS: dict[str, dict[str, Any]] = {
    "full": {},
    "prompt": {"prompt": {"tokens": 4}, "export": {"merge": False}},
    "adalora": {"lora": {"rank": 4}, "adalora": {"initialRank": 6}},
}
"""Settings of tuners; the others have an adapter of rank 4, which is merged."""
QUICK = ("full", "prompt", "lora")


def reload_run(folder: Path, tiny: Path, tuner: str, **training: Any) -> Run:
    settings = {"maxSteps": 4, "learningRate": 1e-2, "globalBatchSize": 8, "precision": "fp32", **training}
    options = OPTIONS.get(tuner, {"lora": {"rank": 4}})
    return make_run(folder, tiny, tinymodel.rows(16, seed=1), settings, tuner=tuner, **options)


def tuners(*quick: str) -> list[Any]:
    return [pytest.param(name, marks=() if name in quick else pytest.mark.deep) for name in available("tuner")]


@pytest.mark.parametrize("tuner", tuners(*QUICK))
def test_the_reloaded_weights_compute_what_was_trained(
    tuner: str, tmp_path: Path, tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    run = reload_run(tmp_path, tiny, tuner)
    run.do(train.run)
    result = read_result(run.directory)
    assert result
    assert result.logits
    assert [len(row) <= TOKENS for row in result.logits.rows] == [True, True]
    run.do(export.run)
    assert "reloaded: logits differ" in caplog.text
    assert run.directory.finished()


@pytest.mark.parametrize("tuner", tuners(*QUICK))
def test_weights_that_reload_otherwise_fail_the_run(
    tuner: str, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All other checks agree with a file that was saved wrongly: its digest, and the merge."""
    save = course.save_trained

    def save_wrongly(*arguments: Any) -> Path:
        folder = save(*arguments)
        for path in folder.glob("*.safetensors"):
            save_file({name: 2 * weight for name, weight in load_file(path).items()}, path, metadata={"format": "pt"})
        return folder

    monkeypatch.setattr(course, "save_trained", save_wrongly)
    run = reload_run(tmp_path, tiny, tuner)
    run.do(train.run)
    with pytest.raises(RunFailure, match="do not reload as they were trained") as failure:
        run.do(export.run)
    assert failure.value.failure is FailureClass.RELOAD_MISMATCH
    assert run.directory.finished() is None


@pytest.mark.deep
@pytest.mark.parametrize("spec", [{"tuner": "full"}, {"tuner": "prompt"}, {"tuner": "lora"}, {"tuner": "qlora"}])
def test_a_training_in_bfloat16_reloads_within_its_tolerance(spec: dict[str, Any], tmp_path: Path, tiny: Path) -> None:
    run = reload_run(tmp_path, tiny, precision="bf16", **spec)
    run.do(train.run)
    run.do(export.run)
    assert run.directory.finished()


def test_the_digest_is_of_the_ends_of_two_rows(tiny: Path) -> None:
    model = load_model(tiny)
    rows = [[*range(3, 60)], [5, 6, 7], [8]]
    recorded = record_logits(model, rows, bf16=False)
    assert recorded.rows == [[*range(28, 60)], [5, 6, 7]]
    assert [len(values) for values in recorded.values] == [4 * 32, 3 * 3]
    expected = model(torch.tensor([[5, 6, 7]])).logits[0, :, 5:8].flatten().tolist()
    assert recorded.values[1] == pytest.approx(expected, abs=1e-5)
    check_reloaded(model, recorded, 1e-6)


def test_a_difference_above_the_tolerance_and_nan_are_refused(tiny: Path) -> None:
    model = load_model(tiny)
    recorded = record_logits(model, [[5, 6, 7]], bf16=False)
    values = [[recorded.values[0][0] + 0.1 * recorded.largest[0], *recorded.values[0][1:]]]
    changed = recorded.model_copy(update={"values": values})
    check_reloaded(model, changed, 0.11)
    with pytest.raises(RunFailure, match=r"differ by 1\.0e-01 of the largest, more than 9e-02"):
        check_reloaded(model, changed, 0.09)
    with pytest.raises(RunFailure):
        check_reloaded(model, recorded.model_copy(update={"values": [[float("nan")] * 9]}), 0.1)
