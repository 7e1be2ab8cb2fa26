"""Method reward: its loss by the formula, what it learns, and the reward model that it publishes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.unit.runtime.train.methods.preferences import preferences
from tests.unit.runtime.train.support import Run, make_run, stop_and_resume
from tunesmith_api.compatibility import refusals
from tunesmith_api.methods import RewardModel
from tunesmith_api.run import Outcome
from tunesmith_api.tuners import TUNER_FACTS, Tuner
from tunesmith_runtime import export, train
from tunesmith_runtime.storage.directory import download_directory
from tunesmith_runtime.train.methods.reward import loss

ROWS = preferences(192)
SETTINGS: dict[str, Any] = {"epochs": 3, "globalBatchSize": 16, "learningRate": 3e-3}
LEARNS: dict[str, Any] = SETTINGS | {"epochs": 5}

ADAPTERS = [
    tuner
    for tuner in TUNER_FACTS
    if tuner not in (Tuner.LORA, Tuner.FULL) and not refusals("FineTuneJob", {"method": "reward", "tuner": tuner})
]


def history(run: Run, metric: str) -> list[float]:
    return [entry[metric] for entry in run.log_history(metric)]


def test_the_loss_is_that_of_bradley_and_terry_with_margin_and_centering() -> None:
    import torch

    from tunesmith_runtime.train.trainers.pair_scores import Scores

    scores = Scores(torch.tensor([1.5]), torch.tensor([0.25]), torch.tensor([0.5]))
    expected = math.log1p(math.exp(-(1.5 - 0.25 - 0.5))) + 0.1 * 1.75**2
    assert loss(scores, RewardModel(center_coefficient=0.1)).tolist() == [pytest.approx(expected, rel=1e-5)]


@pytest.mark.parametrize("tuner", ["lora", pytest.param("full", marks=pytest.mark.deep)])
def test_held_out_answers_are_ranked_as_in_the_rows(tuner: str, tmp_path: Path, tiny: Path) -> None:
    settings = LEARNS | ({"learningRate": 1e-3} if tuner == "full" else {})
    run = make_run(tmp_path, tiny, ROWS, settings, method="reward", tuner=tuner, validation={"fraction": 0.25})
    assert run.do(train.run).outcome is Outcome.SUCCEEDED
    accuracies, margins = history(run, "eval_rewards/accuracies"), history(run, "eval_rewards/margins")
    assert accuracies[-1] > 0.9
    assert margins[-1] > max(1.0, margins[0])


@pytest.mark.deep
def test_a_margin_moves_the_scores_apart(tmp_path: Path, tiny: Path) -> None:
    margins = {}
    for margin in (None, 3.0):
        rows = [row | ({"margin": margin} if margin else {}) for row in ROWS]
        run = make_run(tmp_path / str(margin), tiny, rows, SETTINGS, method="reward")
        run.do(train.run)
        margins[margin] = history(run, "rewards/margins")[-1]
    assert margins[3.0] > margins[None] + 1


@pytest.mark.deep
def test_centering_keeps_the_scores_near_0(tmp_path: Path, tiny: Path) -> None:
    means = []
    for weight in (0.0, 0.5):
        run = make_run(
            tmp_path / str(weight), tiny, ROWS, SETTINGS, method="reward", reward={"centerCoefficient": weight}
        )
        run.do(train.run)
        pairs = zip(history(run, "rewards/chosen")[-8:], history(run, "rewards/rejected")[-8:], strict=True)
        means.append(sum(abs(chosen + rejected) for chosen, rejected in pairs))
    assert means[1] < means[0] / 2


@pytest.mark.parametrize("tuner", ["lora", "full"])
def test_a_stopped_run_resumes_exactly(tuner: str, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SETTINGS | {"epochs": 1, "microBatchSize": 8}
    options: dict[str, Any] = {"method": "reward", "tuner": tuner}
    options |= {"lora": {"dropout": 0.1}} if tuner == "lora" else {}
    whole = make_run(tmp_path / "whole", tiny, ROWS[:64], settings, **options)
    expected = whole.do(train.run)
    run = make_run(tmp_path / "stopped", tiny, ROWS[:64], settings, **options)
    resumed, report = stop_and_resume(run, tiny, ROWS[:64], 2, monkeypatch)
    assert report.resumed_from_step
    assert history(resumed, "loss") == history(whole, "loss")
    assert [each.digest for each in report.artifacts or []] == [each.digest for each in expected.artifacts or []]


def test_accumulated_micro_batches_are_one_batch(tmp_path: Path, tiny: Path) -> None:
    """Also of a last batch with fewer rows."""
    losses = []
    for size in (8, 2):
        settings = SETTINGS | {"epochs": 1, "globalBatchSize": 8, "microBatchSize": size, "precision": "fp32"}
        run = make_run(tmp_path / str(size), tiny, ROWS[:21], settings, method="reward")
        run.do(train.run)
        losses.append(history(run, "loss"))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize(("tuner", "artifacts"), [("lora", ["taskAdapter", "rewardModel"]), ("full", ["rewardModel"])])
def test_the_published_model_scores_with_plain_transformers(
    tuner: str, artifacts: list[str], tmp_path: Path, tiny: Path
) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    settings = LEARNS | ({"learningRate": 1e-3} if tuner == "full" else {})
    run = make_run(tmp_path, tiny, ROWS, settings, method="reward", tuner=tuner)
    run.do(train.run)
    published = run.do(export.run).artifacts or []
    assert [each.name for each in published] == artifacts
    download_directory(run.directory.storage, published[-1].uri, tmp_path / "made")
    config = json.loads((tmp_path / "made" / "config.json").read_text())
    assert config["architectures"] == ["Qwen3ForSequenceClassification"]
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "made")
    assert model.config.num_labels == 1
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "made")
    rows = preferences(32, seed=1)
    scores = []
    for name in ("chosen", "rejected"):
        texts = [tokenizer.apply_chat_template(row["prompt"] + row[name], tokenize=False) for row in rows]
        with torch.no_grad():
            scores.append(model(**tokenizer(texts, padding=True, return_tensors="pt")).logits[:, 0])
    assert float((scores[0] > scores[1]).float().mean()) > 0.9


@pytest.mark.parametrize("tuner", ADAPTERS)
def test_every_adapter_is_merged_with_the_trained_head(tuner: str, tmp_path: Path, tiny: Path) -> None:
    settings = SETTINGS | {"epochs": 1, "precision": "fp32"}
    run = make_run(tmp_path, tiny, ROWS, settings, method="reward", tuner=tuner, lora={"rank": 8})
    run.do(train.run)
    artifacts = (
        run.do(export.run).artifacts or []
    )  # compares the scores of the merged model with those of base and adapter
    assert [each.name for each in artifacts] == ["taskAdapter", "rewardModel"]
