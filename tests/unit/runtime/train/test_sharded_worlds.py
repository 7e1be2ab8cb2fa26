"""Two processes of one pod that divide a model: what they compute, save and publish equals what a single process does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import tinymodel
from tests.unit.runtime.train.methods.preferences import feedback, preferences
from tests.unit.runtime.train.support import Run, again, make_run
from tests.unit.runtime.train.test_best import noise as random_answers
from tests.unit.runtime.train.test_world import FP32, curve, losses
from tests.unit.runtime.train.worlds import tensors_of, train_together
from tunesmith_api.run import Outcome, RunReport

ROWS = tinymodel.rows(90, seed=1)
STRATEGIES = ("fsdp", "zero1", "zero2", "zero3")
TOLERANCE = 2e-5
"""Of losses: gradients of two processes are summed in another order."""


def trained(run: Run, **options: Any) -> RunReport:
    """Train and return the report of process 0."""
    ended = train_together(run, **options)[0]
    assert ended.report, ended
    return ended.report


def divided(strategy: str) -> dict[str, Any]:
    return {"parallelism": {"strategy": strategy}}


def combinations(others: tuple[str, ...], quick: set[tuple[str, str]]) -> list[Any]:
    """Each strategy with each of `others` as parameters; all but the quick ones are deep, as a world takes many seconds to start."""
    return [
        pytest.param(strategy, other, marks=() if (strategy, other) in quick else pytest.mark.deep)
        for strategy in STRATEGIES
        for other in others
    ]


@pytest.mark.parametrize(("strategy", "tuner"), combinations(("full", "lora"), {("fsdp", "lora"), ("zero2", "full")}))
def test_two_processes_that_divide_the_model_compute_the_steps_of_one(
    tiny: Path, tmp_path: Path, strategy: str, tuner: str
) -> None:
    """The artifact has the same tensors, whole, and the validation loss is the same."""
    settings = {**FP32, "epochs": 2, "maxGradNorm": 0.1}
    spec = {"tuner": tuner, "validation": {"fraction": 0.2}}
    alone = make_run(tmp_path / "one", tiny, ROWS, settings, **spec)
    expected = trained(alone, processes=1)
    together = make_run(tmp_path / "two", tiny, ROWS, settings, **spec, **divided(strategy))
    report = trained(together)
    assert losses(together) == pytest.approx(losses(alone), abs=TOLERANCE)
    assert [value for _, value in curve(together, "grad_norm")] == pytest.approx(
        [value for _, value in curve(alone, "grad_norm")], rel=1e-3
    )
    ours, theirs = tensors_of(report), tensors_of(expected)
    assert ours
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.shape == theirs[name].shape
        assert float((tensor - theirs[name]).abs().max()) < 2e-3, name


METHODS: dict[str, list[dict[str, Any]]] = {
    "pretrain": [{"text": row["messages"][1]["content"] + row["messages"][0]["content"]} for row in ROWS],
    "dpo": preferences(22),
    "orpo": preferences(22),
    "simpo": preferences(22),
    "cpo": preferences(22),
    "kto": feedback(44),
}


@pytest.mark.deep
@pytest.mark.parametrize("tuner", ["full", "lora"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("strategy", ["fsdp"])
def test_every_method_computes_the_steps_of_two_whole_models(
    tiny: Path, tmp_path: Path, strategy: str, method: str, tuner: str
) -> None:
    rows, settings = METHODS[method], {**FP32, "globalBatchSize": 8, "epochs": 1}
    spec = {"method": method, "tuner": tuner}
    copies = make_run(tmp_path / "copies", tiny, rows, settings, **spec, **divided("ddp"))
    trained(copies)
    together = make_run(tmp_path / "parts", tiny, rows, settings, **spec, **divided(strategy))
    trained(together)
    assert losses(together) == pytest.approx(losses(copies), abs=TOLERANCE)


STOPPED_AT = 7
LONG: dict[str, Any] = {**FP32, "epochs": 4}
WITH_DROPOUT: dict[str, Any] = {"lora": {"dropout": 0.1}, "validation": {"fraction": 0.1}}


@pytest.mark.parametrize(("strategy", "tuner"), combinations(("full", "lora"), {("fsdp", "lora"), ("zero3", "full")}))
def test_a_stopped_world_resumes_to_the_bit(tiny: Path, tmp_path: Path, strategy: str, tuner: str) -> None:
    spec = {**(WITH_DROPOUT if tuner == "lora" else {}), "tuner": tuner, **divided(strategy)}
    whole = make_run(tmp_path / "whole", tiny, ROWS, LONG, **spec)
    expected = trained(whole)
    run = make_run(tmp_path / "parts", tiny, ROWS, LONG, **spec)
    stopped = trained(run, stop_at=STOPPED_AT)
    assert stopped.outcome is Outcome.PREEMPTED
    assert stopped.last_checkpoint
    report = trained(again(run, tiny, ROWS, 2))
    assert report.resumed_from_step == stopped.last_checkpoint.step
    assert curve(run) == curve(whole)
    assert curve(run, "eval_loss") == curve(whole, "eval_loss")
    assert report.artifacts
    assert expected.artifacts
    assert report.artifacts[0].digest == expected.artifacts[0].digest


@pytest.mark.parametrize(("strategy", "other"), combinations(("fsdp", "ddp"), {("fsdp", "fsdp")}))
def test_another_world_goes_on_with_the_checkpoint_of_two(
    tiny: Path, tmp_path: Path, strategy: str, other: str
) -> None:
    """The losses go on as if nothing had happened: weights, moments and the learning rate are those of the checkpoint."""
    whole = make_run(tmp_path / "whole", tiny, ROWS, LONG, tuner="full", **divided(strategy))
    trained(whole)
    run = make_run(tmp_path / "parts", tiny, ROWS, LONG, tuner="full", **divided(strategy))
    trained(run, stop_at=STOPPED_AT)
    resumed = again(run, tiny, ROWS, 2)
    resumed.spec.spec["parallelism"]["strategy"] = other
    report = trained(resumed, processes=1 if other == "fsdp" else 2)
    assert report.resumed_from_step
    assert losses(run) == pytest.approx(losses(whole), abs=1e-4)


@pytest.mark.parametrize(("strategy", "tuner"), combinations(("full", "lora"), {("fsdp", "full"), ("zero3", "lora")}))
def test_the_best_weights_of_a_divided_model_are_published(
    tiny: Path, tmp_path: Path, strategy: str, tuner: str
) -> None:
    """They equal the last weights of a world that trains up to the best step; the schedule does not depend on the steps."""
    settings = {**FP32, "globalBatchSize": 8, "epochs": 12, "scheduler": "constant", "warmupRatio": 0}
    settings["learningRate"] = 2e-2 if tuner == "lora" else 3e-3
    spec = {"tuner": tuner, "validation": {"fraction": 0.25}, **divided(strategy)}
    rows = random_answers(48, seed=3)
    best = trained(make_run(tmp_path / "best", tiny, rows, settings, export={"weights": "best"}, **spec))
    assert best.metrics
    assert best.metrics.best_step
    assert best.metrics.steps
    assert best.metrics.best_step < best.metrics.steps
    until_best = trained(
        make_run(tmp_path / "last", tiny, rows, {**settings, "maxSteps": best.metrics.best_step}, **spec)
    )
    assert best.artifacts
    assert until_best.artifacts
    assert best.artifacts[0].digest == until_best.artifacts[0].digest
