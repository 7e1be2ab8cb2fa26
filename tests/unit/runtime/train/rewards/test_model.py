"""The reward of another model: what method reward has trained raises the answers that its rows prefer."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

from tests import tinymodel
from tests.unit.runtime.train.methods.preferences import preferences
from tests.unit.runtime.train.methods.samples import FULL, history, sampling_run
from tests.unit.runtime.train.support import Run, make_run
from tunesmith_api.run import ModelRole
from tunesmith_runtime import export, train
from tunesmith_runtime.storage.directory import download_directory

TASTE: dict[str, Any] = {"name": "taste", "type": "model", "model": {"uri": "s3://models/scorer"}}
RIGHT: dict[str, Any] = {"name": "right", "type": "accuracy", "match": "exact", "weight": 0.0}
"""The share of right answers, which is reported and not rewarded."""
EPOCH = 16
"""Steps of a pass over the prompts."""


def published(run: Run, artifact: str, folder: Path) -> Path:
    """Train, and return the folder with an artifact of the run."""
    run.do(train.run)
    artifacts = {each.name: each for each in run.do(export.run).artifacts or []}
    download_directory(run.directory.storage, artifacts[artifact].uri, folder)
    return folder


def test_a_policy_learns_what_a_trained_reward_model_prefers(tmp_path: Path, tiny: Path) -> None:
    """From preferences to a reward model, and from that to a model that gives more of the right answers."""
    rated = make_run(
        tmp_path / "reward", tiny, preferences(192), {"epochs": 5, "learningRate": 1e-3}, method="reward", tuner="full"
    )
    scorer = published(rated, "rewardModel", tmp_path / "scorer")
    started = make_run(
        tmp_path / "sft", tiny, tinymodel.rows(192, 3), {"maxSteps": 36, "learningRate": 2e-3}, tuner="full"
    )
    policy = published(started, "model", tmp_path / "policy")
    run = sampling_run(
        tmp_path / "grpo", policy, {"learningRate": 1e-3}, settings={"beta": 0.0}, rewards=[TASTE, RIGHT], **FULL
    )
    run.work.model(ModelRole.REWARD).symlink_to(scorer)
    run.do(train.run)
    scores, right = history(run, "rewards/taste"), history(run, "rewards/right")
    assert mean(scores[-EPOCH:]) > mean(scores[:EPOCH]) + 0.5
    assert mean(right[-EPOCH:]) > mean(right[:EPOCH]) + 0.05
