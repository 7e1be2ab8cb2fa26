"""Method dpo: its losses by their formulas, and its reference, which is the model before the training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.unit.runtime.train.methods.preferences import preferences
from tests.unit.runtime.train.support import Run, make_run, stop_and_resume
from tunesmith_api.methods import Dpo, DpoLoss
from tunesmith_runtime import train
from tunesmith_runtime.train.methods.dpo import LOSSES, Ratios
from tunesmith_runtime.train.models import reference


def log_sigmoid(value: float) -> float:
    return -math.log1p(math.exp(-value))


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


CHOSEN, REJECTED, TOKENS = 1.5, -0.5, (5, 4)
BETA, FLIPPED = 0.2, 0.1
DELTA = BETA * (CHOSEN - REJECTED)
EXPECTED = {
    DpoLoss.SIGMOID: -log_sigmoid(DELTA),
    DpoLoss.HINGE: 1 - DELTA,
    DpoLoss.IPO: (CHOSEN / 5 - REJECTED / 4 - 1 / (2 * BETA)) ** 2,
    DpoLoss.ROBUST: (-(1 - FLIPPED) * log_sigmoid(DELTA) + FLIPPED * log_sigmoid(-DELTA)) / (1 - 2 * FLIPPED),
    DpoLoss.APO_ZERO: 1 - sigmoid(BETA * CHOSEN) + sigmoid(BETA * REJECTED),
    DpoLoss.APO_DOWN: sigmoid(BETA * CHOSEN) + 1 - sigmoid(DELTA),
    DpoLoss.BCO_PAIR: -log_sigmoid(BETA * CHOSEN) - log_sigmoid(-BETA * REJECTED),
    DpoLoss.SFT: 0.75,
}


@pytest.mark.parametrize("name", DpoLoss)
def test_each_loss_is_that_of_its_paper(name: DpoLoss) -> None:
    import torch

    values = (CHOSEN, REJECTED, CHOSEN / TOKENS[0], REJECTED / TOKENS[1], -0.75)
    ratios = Ratios(*(torch.tensor([value]) for value in values))
    loss = LOSSES[name](ratios, Dpo(beta=BETA, label_smoothing=FLIPPED))
    assert loss.tolist() == [pytest.approx(EXPECTED[name], rel=1e-5)]


@pytest.mark.parametrize("tuner", ["lora", "full"])
def test_the_first_loss_is_log_2_as_the_reference_is_the_model_before_the_training(
    tuner: str, tmp_path: Path, tiny: Path
) -> None:
    settings = {"maxSteps": 2, "globalBatchSize": 8, "learningRate": 1e-3, "precision": "fp32"}
    run = make_run(tmp_path, tiny, preferences(16), settings, method="dpo", tuner=tuner)
    run.do(train.run)
    first, second = (entry["loss"] for entry in run.log_history())
    assert first == pytest.approx(math.log(2), rel=1e-4)
    assert second != pytest.approx(math.log(2), rel=1e-4)


def test_the_log_probabilities_are_those_of_the_answers_after_their_prompts(tmp_path: Path, tiny: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    row = preferences(1)[0]
    settings = {"maxSteps": 1, "globalBatchSize": 1, "precision": "fp32"}
    run = make_run(tmp_path, tiny, [row], settings, method="dpo")
    run.do(train.run)
    model = AutoModelForCausalLM.from_pretrained(tiny)
    tokenizer = AutoTokenizer.from_pretrained(tiny)

    def log_prob(answer: list[dict[str, Any]]) -> float:
        prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
        text = tokenizer(answer[0]["content"] + "<|im_end|>")["input_ids"]
        ids = torch.tensor([[*tokenizer(prompt)["input_ids"], *text]])
        with torch.no_grad():
            every = model(input_ids=ids).logits.log_softmax(-1)[0, :-1]
        return float(every.gather(1, ids[0, 1:, None])[-len(text) :].sum())

    [entry] = run.log_history("logps/chosen")
    assert entry["logps/chosen"] == pytest.approx(log_prob(row["chosen"]), rel=1e-4)
    assert entry["logps/rejected"] == pytest.approx(log_prob(row["rejected"]), rel=1e-4)


def test_losses_are_added_with_their_weights(tmp_path: Path, tiny: Path) -> None:
    settings = {"maxSteps": 1, "globalBatchSize": 8}
    first = {}
    for name, dpo in {
        "sigmoid": {},
        "sft": {"loss": ["sft"]},
        "mixed": {"loss": ["sigmoid", "sft"], "lossWeights": [0.5, 2]},
        "free": {"referenceFree": True},
    }.items():
        run = make_run(tmp_path / name, tiny, preferences(8), settings, method="dpo", dpo=dpo)
        run.do(train.run)
        first[name] = run.log_history()[0]["loss"]
    assert first["mixed"] == pytest.approx(0.5 * first["sigmoid"] + 2 * first["sft"], rel=1e-4)
    assert first["free"] != pytest.approx(math.log(2), rel=1e-4)


PRECOMPUTED = {"precomputeReference": True}


def precomputing_run(folder: Path, tiny: Path, tuner: str, dpo: dict[str, Any]) -> Run:
    """A run of two epochs of three steps, which validates."""
    settings = {"epochs": 2, "globalBatchSize": 8, "microBatchSize": 4, "learningRate": 3e-3, "precision": "fp32"}
    rows, held_out = preferences(28), {"fraction": 0.2}
    return make_run(folder, tiny, rows, settings, method="dpo", tuner=tuner, dpo=dpo, validation=held_out)


def refuse_to_copy(*_: Any) -> None:
    raise AssertionError("a copy of the model is made")


@pytest.mark.parametrize("tuner", ["full", pytest.param("lora", marks=pytest.mark.deep)])
def test_a_precomputed_reference_has_the_same_losses_without_a_copy(
    tuner: str, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = precomputing_run(tmp_path / "plain", tiny, tuner, {})
    plain.do(train.run)
    monkeypatch.setattr(reference, "Frozen", refuse_to_copy)
    run = precomputing_run(tmp_path / "precomputed", tiny, tuner, PRECOMPUTED)
    run.do(train.run)
    for metric in ("loss", "eval_loss", "rewards/margins"):
        expected = [entry[metric] for entry in plain.log_history(metric)]
        assert [entry[metric] for entry in run.log_history(metric)] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_run_with_a_precomputed_reference_resumes_exactly(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference is that before the first step, not the resumed model."""
    whole = precomputing_run(tmp_path / "whole", tiny, "full", PRECOMPUTED)
    expected = whole.do(train.run)
    run = precomputing_run(tmp_path / "stopped", tiny, "full", PRECOMPUTED)
    resumed, report = stop_and_resume(run, tiny, preferences(28), 4, monkeypatch)
    assert report.resumed_from_step
    for metric in ("loss", "eval_loss", "rewards/margins"):
        expected_values = [entry[metric] for entry in whole.log_history(metric)]
        assert [entry[metric] for entry in resumed.log_history(metric)] == expected_values
    assert [each.digest for each in report.artifacts or []] == [each.digest for each in expected.artifacts or []]
