"""Rollouts of the methods that sample completions: their steps, what they learn from, and resuming within one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.unit.runtime.train.methods.samples import FULL, PROMPTS, history, sampling_run
from tests.unit.runtime.train.support import stop_and_resume
from tests.unit.runtime.train.world.test_world import start
from tunesmith_runtime import export, train

SEVERAL: dict[str, Any] = {"stepsPerRollout": 4, "clip": {"low": 0.2, "high": 0.28}}


@pytest.mark.parametrize(
    ("method", "settings", "stop"),
    [
        pytest.param("grpo", {}, 2, marks=pytest.mark.deep),
        ("grpo", SEVERAL | {"beta": 0.1, "maskTruncated": True}, 2),
        pytest.param("rloo", {"stepsPerRollout": 2}, 3, marks=pytest.mark.deep),
    ],
)
def test_a_stopped_run_samples_and_learns_the_same(
    method: str, settings: dict[str, Any], stop: int, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it stops within a rollout, whose completions the checkpoint holds."""
    training = {"maxSteps": 6}
    whole = sampling_run(tmp_path / "whole", tiny, training, method, settings)
    expected = whole.do(train.run)
    run = sampling_run(tmp_path / "stopped", tiny, training, method, settings)
    resumed, report = stop_and_resume(run, tiny, PROMPTS, stop, monkeypatch)
    assert report.resumed_from_step
    assert history(resumed, "reward") == history(whole, "reward")
    assert history(resumed, "loss") == history(whole, "loss")
    assert [each.digest for each in report.artifacts or []] == [each.digest for each in expected.artifacts or []]
    assert [each.name for each in resumed.do(export.run).artifacts or []] == ["adapter", "merged"]


def test_completions_are_sampled_once_for_several_steps(tmp_path: Path, tiny: Path) -> None:
    run = sampling_run(tmp_path, tiny, {"maxSteps": 7, "learningRate": 5e-3}, settings=SEVERAL, **FULL)
    assert run.do(train.run).metrics.steps == 7  # type: ignore[union-attr]
    assert [entry["step"] for entry in run.log_history("reward")] == [1, 5]
    clipped = history(run, "clip_ratio")
    assert (clipped[0], clipped[4]) == (0, 0)  # the weights are those of the samples
    assert max(clipped) > 0


def test_a_rollout_ends_with_the_epoch(tmp_path: Path, tiny: Path) -> None:
    """An epoch of 64 prompts has 16 steps of 4 prompts."""
    run = sampling_run(tmp_path, tiny, {"epochs": 2}, settings={"stepsPerRollout": 6, "maxCompletionLength": 1}, **FULL)
    run.do(train.run)
    assert [entry["step"] for entry in run.log_history("reward")] == [1, 7, 13, 17, 23, 29]


ONE_STEP: dict[str, Any] = {"maxSteps": 1, "warmupRatio": 0}
PRINTABLE = [{"name": "printable", "type": "format", "pattern": "[ -~]"}]


def ending_with(model: Path, folder: Path, tokens: list[int]) -> Path:
    """Return a copy of a model whose generation_config.json names further tokens that end an answer."""
    shutil.copytree(model, folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": tokens}))
    return folder


def test_every_token_that_ends_an_answer_when_served_ends_a_completion(tmp_path: Path, tiny: Path) -> None:
    model = ending_with(tiny, tmp_path / "model", list(range(256, 512)))
    settings = {"maxCompletionLength": 24}
    run = sampling_run(tmp_path, model, ONE_STEP, settings=settings, rewards=PRINTABLE, **FULL)
    run.do(train.run)
    assert history(run, "completions/truncated") == [0]
    assert history(run, "completions/length")[0] < 4


@pytest.mark.parametrize("is_masked", [False, True])
def test_nothing_is_learned_from_truncated_completions_if_they_are_masked(
    is_masked: bool, tmp_path: Path, tiny: Path
) -> None:
    """About half of the completions end with their first token."""
    model = ending_with(tiny, tmp_path / "model", list(range(256, 512)))
    settings = {"maskTruncated": is_masked, "maxCompletionLength": 1}
    run = sampling_run(tmp_path, model, ONE_STEP, settings=settings, rewards=PRINTABLE, **FULL)
    report = run.do(train.run)
    truncated = history(run, "completions/truncated")[0]
    assert 0.2 < truncated < 0.8
    assert report.metrics is not None
    prompt = (report.metrics.tokens or 0) / (32 * (1 - truncated if is_masked else 1)) - 1
    assert 10 < prompt < 30


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("grpo", {"loss": "dapo", "beta": 0.05}),
        pytest.param("rloo", {"stepsPerRollout": 2}, marks=pytest.mark.deep),
    ],
)
def test_two_pods_compute_the_steps_of_one(method: str, settings: dict[str, Any], tmp_path: Path, tiny: Path) -> None:
    """The last step of an epoch has 2 prompts of 4: blank groups fill it up."""
    prompts = PROMPTS[:6]
    training = {"microBatchSize": 4, "precision": "fp32", "epochs": 2, "learningRate": 1e-3}
    alone = sampling_run(tmp_path / "one", tiny, training, method, settings, rows=prompts, **FULL)
    expected = alone.do(train.run)
    together = sampling_run(tmp_path / "two", tiny, training, method, settings, rows=prompts, **FULL)
    leader, other = start(together, tiny, 1, rows=prompts).reports()
    assert (leader.failure, other.failure) == (None, None)
    for metric in ("loss", "reward", "kl", "completions/length"):
        assert history(together, metric) == pytest.approx(history(alone, metric), abs=1e-5), metric
    assert leader.metrics
    assert expected.metrics
    assert (leader.metrics.steps, leader.metrics.tokens) == (4, expected.metrics.tokens)
