"""Tuner adalora: ranks are really reduced to lora.rank on average, by importance, and a resumed run reduces the same ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests import tinymodel
from tests.unit.runtime.train.support import Run, make_run, stop_and_resume
from tunesmith_api.failures import FailureClass
from tunesmith_runtime import export, train
from tunesmith_runtime.errors import RunFailure

ROWS = tinymodel.rows(96)
START, TARGET, STEPS = 8, 2, 30
LAYERS = 14
"""Linear layers of the tiny model without its head."""


def adalora_run(folder: Path, tiny: Path, **settings: Any) -> Run:
    training = {"maxSteps": STEPS, "globalBatchSize": 8, "precision": "fp32", "learningRate": 2e-2}
    schedule = {"initialRank": START, **settings}
    return make_run(folder, tiny, ROWS, training, tuner="adalora", adalora=schedule, lora={"rank": TARGET})


def ranks(run: Run) -> list[int]:
    """The singular values of each layer that are not zero."""
    weights = load_file(run.work.run / "adapter" / "adapter_model.safetensors")
    return [int(weight.count_nonzero()) for name, weight in sorted(weights.items()) if name.endswith("lora_E")]


def losses(run: Run) -> list[float]:
    return [entry["loss"] for entry in run.log_history()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> tuple[Run, Any]:
    run = adalora_run(tmp_path_factory.mktemp("adalora"), tiny)
    return run, run.do(train.run)


def test_the_ranks_of_all_layers_meet_the_target_and_differ(whole: tuple[Run, Any]) -> None:
    run, _ = whole
    assert losses(run)[-1] < 0.8 * losses(run)[0]
    found = ranks(run)
    assert len(found) == LAYERS
    assert sum(found) == TARGET * LAYERS
    assert len(set(found)) > 1


def test_the_adapter_is_merged(whole: tuple[Run, Any]) -> None:
    report = whole[0].do(export.run)  # compares the logits of the merged model with those of base and adapter
    assert [artifact.name for artifact in report.artifacts or []] == ["adapter", "merged"]


@pytest.mark.parametrize("step", [15, 25])
def test_a_resumed_run_has_the_same_ranks(
    whole: tuple[Run, Any], step: int, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = adalora_run(tmp_path, tiny)
    resumed, report = stop_and_resume(run, tiny, ROWS, step, monkeypatch)
    assert losses(resumed) == losses(whole[0])
    assert [each.digest for each in report.artifacts or []] == [each.digest for each in whole[1].artifacts or []]


def test_a_schedule_that_is_longer_than_the_run_is_refused_with_both_numbers(tmp_path: Path, tiny: Path) -> None:
    with pytest.raises(RunFailure) as failure:
        adalora_run(tmp_path, tiny, initialSteps=20, finalSteps=15).do(train.run)
    assert failure.value.failure is FailureClass.BAD_SPEC
    assert "initialSteps 20 and adalora.finalSteps 15 leave none of the run's 30 steps" in failure.value.message


def test_the_regularization_draws_singular_vectors_towards_orthogonal_ones() -> None:
    from tunesmith_runtime.train.tuners.rank_allocation import distance_to_orthogonal

    rows = torch.nn.Parameter(torch.eye(3, 5))
    assert float(distance_to_orthogonal(rows)) == pytest.approx(0)
    assert float(distance_to_orthogonal(torch.nn.Parameter(2 * rows.detach().T))) == pytest.approx(27**0.5)
