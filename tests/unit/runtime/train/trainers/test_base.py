"""RunMixin over a trainer other than SFT's: what a method has to define, and what every run gets from the mixin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer

from tests import tinymodel
from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.trainers.base import RunMixin

STEPS = 6
STOPPED_AFTER = 3


class Preference(RunMixin, DPOTrainer):  # type: ignore[misc]
    """DPO as a method would define it: rows are encoded already, in columns other than those of SFT."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def row_lengths(self, dataset: Any) -> list[int]:
        return [len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])) for row in dataset]


class Stop(TrainerCallback):  # type: ignore[misc]
    """Saves a checkpoint after a step, and ends the training there."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_save = control.should_training_stop = state.global_step == STOPPED_AFTER


@pytest.fixture(scope="module")
def preferences(tiny: Path) -> Dataset:
    """Pairs of answers of different length, encoded."""
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    categories = list(tinymodel.CATEGORIES)
    rows = [
        {"prompt_ids": f"A {word} is a", "chosen_ids": f" {category}.", "rejected_ids": f" {other}, a {other}."}
        for category, words in tinymodel.CATEGORIES.items()
        for word, other in zip(words, categories, strict=True)
        if other != category
    ]
    return Dataset.from_list([{column: tokenizer(text)["input_ids"] for column, text in row.items()} for row in rows])


def make_trainer(tiny: Path, folder: Path, preferences: Dataset, *callbacks: TrainerCallback, **options: Any) -> Any:
    """A trainer of four pairs a step, with a reference model of its own."""
    torch.manual_seed(1)
    arguments = DPOConfig(
        output_dir=str(folder), max_steps=STEPS, per_device_train_batch_size=2, gradient_accumulation_steps=2,
        learning_rate=3e-3, use_cpu=True, logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True,
        include_num_input_tokens_seen="non_padding", bf16=False, **options,
    )  # fmt: skip
    return Preference(
        model=AutoModelForCausalLM.from_pretrained(tiny),
        ref_model=AutoModelForCausalLM.from_pretrained(tiny),
        args=arguments,
        train_dataset=preferences,
        processing_class=AutoTokenizer.from_pretrained(tiny),
        callbacks=list(callbacks),
    )


def losses(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.fixture(scope="module")
def uninterrupted(tiny: Path, preferences: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A trainer that has made all its steps."""
    trainer = make_trainer(tiny, tmp_path_factory.mktemp("dpo"), preferences)
    trainer.start(None)
    return trainer


def test_the_loss_of_another_method_falls_from_that_of_equal_models(uninterrupted: Any) -> None:
    assert losses(uninterrupted)[0] == pytest.approx(0.6931, abs=1e-3)  # log 2: policy and reference are equal
    assert losses(uninterrupted)[-1] < 0.6


def test_the_dry_pass_leaves_no_metrics(tiny: Path, preferences: Dataset, tmp_path: Path) -> None:
    class Before(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            metrics.append({key: list(values) for key, values in trainer._metrics["train"].items()})
            control.should_training_stop = True

    metrics: list[dict[str, list[float]]] = []
    trainer = make_trainer(tiny, tmp_path, preferences, Before())
    trainer.start(None)
    assert metrics[0] == {}


def test_tokens_are_counted_without_padding(uninterrupted: Any, preferences: Dataset) -> None:
    pairs = [2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in preferences]
    assert len(pairs) == 12
    assert uninterrupted.state.num_input_tokens_seen == sum(pairs) * STEPS // 3  # three steps of four pairs an epoch


def test_another_method_resumes_exactly(uninterrupted: Any, tiny: Path, preferences: Dataset, tmp_path: Path) -> None:
    make_trainer(tiny, tmp_path, preferences, Stop()).start(None)
    resumed = make_trainer(tiny, tmp_path, preferences)
    resumed.start(tmp_path / f"checkpoint-{STOPPED_AFTER}")
    assert losses(resumed) == losses(uninterrupted)
    weights = zip(resumed.model.parameters(), uninterrupted.model.parameters(), strict=True)
    assert all(torch.equal(first, second) for first, second in weights)


def test_a_loss_that_is_not_finite_ends_another_method_too(tiny: Path, preferences: Dataset, tmp_path: Path) -> None:
    trainer = make_trainer(tiny, tmp_path, preferences, beta=float("inf"))
    with pytest.raises(RunFailure, match=r"the loss became .* in step 1") as failure:
        trainer.start(None)
    assert failure.value.failure is FailureClass.DIVERGED
