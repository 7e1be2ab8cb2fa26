"""What holds for every method that learns from preferences: dpo, orpo, simpo and cpo."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.unit.runtime.train.methods.preferences import preferences
from tests.unit.runtime.train.support import Run, make_run, stop_and_resume
from tunesmith_api.methods import Cpo, Orpo, Simpo
from tunesmith_api.run import Outcome
from tunesmith_runtime import export, train
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.methods import cpo, orpo, simpo

METHODS = ["dpo", *(pytest.param(method, marks=pytest.mark.deep) for method in ("orpo", "simpo", "cpo"))]
ROWS = preferences(192)
SETTINGS: dict[str, Any] = {"epochs": 2, "globalBatchSize": 16, "learningRate": 3e-3}
VALIDATED: dict[str, Any] = {"validation": {"fraction": 0.25}, "lora": {"dropout": 0.1}}


def history(run: Run, metric: str) -> list[float]:
    return [entry[metric] for entry in run.log_history(metric)]


@pytest.mark.parametrize("method", METHODS)
def test_held_out_answers_are_ranked_as_in_the_rows(method: str, tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, ROWS, SETTINGS | {"epochs": 5}, method=method, **VALIDATED)
    report = run.do(train.run)
    assert report.outcome is Outcome.SUCCEEDED
    assert report.rows is not None
    assert (report.rows.kept, report.rows.validation) == (144, 48)
    first, last = history(run, "eval_rewards/accuracies")[0], history(run, "eval_rewards/accuracies")[-1]
    assert last > 0.9
    assert last >= first
    margins = history(run, "eval_rewards/margins")
    assert margins[-1] > max(0.0, margins[0])
    assert history(run, "eval_loss")[-1] < history(run, "loss")[0]


@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_run_resumes_exactly(
    method: str, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SETTINGS | {"epochs": 1, "microBatchSize": 8}
    whole = make_run(tmp_path / "whole", tiny, ROWS[:64], settings, method=method, **VALIDATED)
    expected = whole.do(train.run)
    run = make_run(tmp_path / "stopped", tiny, ROWS[:64], settings, method=method, **VALIDATED)
    resumed, report = stop_and_resume(run, tiny, ROWS[:64], 2, monkeypatch)
    assert report.resumed_from_step
    assert history(resumed, "loss") == history(whole, "loss")
    assert history(resumed, "rewards/margins") == history(whole, "rewards/margins")
    assert [each.digest for each in report.artifacts or []] == [each.digest for each in expected.artifacts or []]


@pytest.mark.parametrize("tuner", ["lora", "full"])
def test_accumulated_micro_batches_are_one_batch(tuner: str, tmp_path: Path, tiny: Path) -> None:
    """Also of a last batch with fewer rows."""
    losses = []
    for size in (8, 2):
        settings = SETTINGS | {"epochs": 1, "globalBatchSize": 8, "microBatchSize": size, "precision": "fp32"}
        run = make_run(tmp_path / str(size), tiny, ROWS[:21], settings, method="dpo", tuner=tuner)
        run.do(train.run)
        losses.append(history(run, "loss"))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_tuned_model_is_published_as_after_sft(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, ROWS[:32], SETTINGS, method="dpo")
    run.do(train.run)
    assert [each.name for each in run.do(export.run).artifacts or []] == ["adapter", "merged"]


def test_rows_of_another_format_are_refused_with_the_format_to_use(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, [{"prompt": "A kiwi is a ", "completion": "fruit"}], SETTINGS, method="dpo")
    with pytest.raises(RunFailure, match="method dpo learns from preference"):
        run.do(train.run)


def log_sigmoid(value: float) -> float:
    return -math.log1p(math.exp(-value))


def log_odds(mean: float) -> float:
    return math.log(math.exp(mean) / (1 - math.exp(mean)))


CHOSEN, REJECTED = (-3.0, 5), (-4.0, 4)
"""Sum of the log-probabilities of an answer, and its tokens."""


@pytest.mark.parametrize(
    ("loss", "settings", "expected"),
    [
        (orpo.loss, Orpo(beta=0.2), 0.6 - 0.2 * log_sigmoid(log_odds(-0.6) - log_odds(-1.0))),
        (simpo.loss, Simpo(beta=2, gamma=0.5), -log_sigmoid(2 * (-0.6 + 1.0) - 0.5)),
        (cpo.loss, Cpo(beta=0.2, alpha=0.5), -log_sigmoid(0.2 * (-3 + 4)) + 0.5 * 0.6),
    ],
    ids=["orpo", "simpo", "cpo"],
)
def test_each_loss_is_that_of_its_paper(loss: Any, settings: Any, expected: float) -> None:
    import torch

    from tunesmith_runtime.train.losses.log_probs import LogProbs
    from tunesmith_runtime.train.trainers.preference import Answers

    chosen, rejected = (LogProbs(torch.tensor([total]), torch.tensor([tokens])) for total, tokens in (CHOSEN, REJECTED))
    assert loss(Answers(chosen, rejected), settings).tolist() == [pytest.approx(expected, rel=1e-5)]
