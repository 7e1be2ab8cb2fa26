"""Method classify: its losses by the formula, what it learns of held-out texts, what it refuses, and the model that it publishes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.unit.runtime.train.methods.texts import SEVERAL, labelled
from tests.unit.runtime.train.support import Run, make_run, stop_and_resume
from tunesmith_api.failures import FailureClass
from tunesmith_api.methods import Problem
from tunesmith_api.run import Outcome
from tunesmith_runtime import export, train
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.storage.directory import download_directory
from tunesmith_runtime.train.methods.classify import LOSSES

SETTINGS: dict[str, Any] = {"epochs": 5, "globalBatchSize": 16, "learningRate": 3e-3}
HELD_OUT: dict[str, Any] = {"fraction": 0.25}
PROBLEMS = [str(each) for each in Problem]


def history(run: Run, metric: str) -> list[float]:
    return [entry[metric] for entry in run.log_history(metric)]


def settings_for(problem: str) -> dict[str, Any]:
    """Return the block of a problem; the others are inferred from the rows."""
    return {"classify": {"problem": problem}} if problem == "regression" else {}


@pytest.mark.parametrize(
    ("problem", "target", "expected"),
    [
        ("singleLabel", [0.0, 1.0], math.log(1 + math.exp(1.5))),
        ("multiLabel", [1.0, 1.0], (math.log(1 + math.exp(-1.0)) + math.log(1 + math.exp(0.5))) / 2),
        ("regression", [0.0, 1.0], (1.0**2 + 1.5**2) / 2),
    ],
)
def test_the_loss_of_a_row_is_that_of_its_problem(problem: str, target: list[float], expected: float) -> None:
    import torch

    loss = LOSSES[Problem(problem)](torch.tensor([[1.0, -0.5]]), torch.tensor([target]))
    assert loss.tolist() == [pytest.approx(expected, rel=1e-5)]


@pytest.mark.parametrize(
    ("problem", "tuner"), [("singleLabel", "lora"), ("multiLabel", "full"), ("regression", "lora")]
)
def test_labels_of_held_out_texts_are_learned(problem: str, tuner: str, tmp_path: Path, tiny: Path) -> None:
    training = SETTINGS | ({"learningRate": 1e-3} if tuner == "full" else {})
    options = settings_for(problem)
    run = make_run(
        tmp_path, tiny, labelled(192, problem), training, method="classify", tuner=tuner, validation=HELD_OUT, **options
    )
    report = run.do(train.run)
    assert report.outcome is Outcome.SUCCEEDED
    metrics = report.metrics
    assert metrics is not None
    if problem == "regression":
        assert metrics.eval_loss is not None
        assert metrics.eval_correlation is not None
        assert metrics.eval_loss < 0.1  # 0.31 is the variance of the numbers
        assert metrics.eval_correlation > 0.9
    else:
        assert metrics.eval_accuracy is not None
        assert metrics.eval_f1 is not None
        assert metrics.eval_accuracy > 0.9  # 0.25 by chance
        assert metrics.eval_f1 > 0.9


@pytest.mark.parametrize(("tuner", "artifacts"), [("lora", ["taskAdapter", "classifier"]), ("full", ["classifier"])])
def test_the_published_model_classifies_with_plain_transformers(
    tuner: str, artifacts: list[str], tmp_path: Path, tiny: Path
) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    training = SETTINGS | ({"learningRate": 1e-3} if tuner == "full" else {})
    run = make_run(tmp_path, tiny, labelled(192), training, method="classify", tuner=tuner)
    run.do(train.run)
    published = run.do(export.run).artifacts or []
    assert [each.name for each in published] == artifacts
    download_directory(run.directory.storage, published[-1].uri, tmp_path / "made")
    config = json.loads((tmp_path / "made" / "config.json").read_text())
    assert config["id2label"] == {"0": "animal", "1": "fruit", "2": "metal", "3": "tool"}
    assert config["problem_type"] == "single_label_classification"
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "made")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "made")
    rows = labelled(32, seed=1)
    with torch.no_grad():
        logits = model(**tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt")).logits
    found = [model.config.id2label[each] for each in logits.argmax(dim=1).tolist()]
    assert sum(name == row["label"] for name, row in zip(found, rows, strict=True)) > 0.9 * len(rows)


def test_a_stopped_run_resumes_exactly(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, training = labelled(64), SETTINGS | {"epochs": 1, "microBatchSize": 8}
    options: dict[str, Any] = {"method": "classify", "lora": {"dropout": 0.1}, "validation": HELD_OUT}
    whole = make_run(tmp_path / "whole", tiny, rows, training, **options)
    expected = whole.do(train.run)
    run, report = stop_and_resume(
        make_run(tmp_path / "stopped", tiny, rows, training, **options), tiny, rows, 2, monkeypatch
    )
    assert report.resumed_from_step
    assert history(run, "loss") == history(whole, "loss")
    assert report.metrics is not None
    assert expected.metrics is not None
    assert report.metrics.eval_f1 == expected.metrics.eval_f1
    assert [each.digest for each in report.artifacts or []] == [each.digest for each in expected.artifacts or []]


def test_accumulated_micro_batches_are_one_batch(tmp_path: Path, tiny: Path) -> None:
    """Also of a last batch with fewer rows."""
    losses = []
    for size in (8, 2):
        training = SETTINGS | {"epochs": 1, "globalBatchSize": 8, "microBatchSize": size, "precision": "fp32"}
        run = make_run(tmp_path / str(size), tiny, labelled(21), training, method="classify")
        run.do(train.run)
        losses.append(history(run, "loss"))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


BAD: dict[str, tuple[list[Any], dict[str, Any], FailureClass, str, str]] = {
    "one class": (["a"] * 3, {}, FailureClass.EMPTY_DATASET, 'all 3 rows have the label "a"', "add rows with other"),
    "a class for each row": (
        ["a", "b", "c"], {}, FailureClass.BAD_ROW, "3 rows have 3 classes", "spec.classify.problem: regression",
    ),
    "lists and single classes": (
        [["a"], "b", "b"], {}, FailureClass.BAD_ROW, "1 rows have a list of classes as label, and 2 a single", "list in each row",
    ),
    "numbers of a regression": (
        [0.5, 1, 1], {}, FailureClass.BAD_ROW, "'label' has 0.5, which is no class but a number", "problem: regression",
    ),
    "a text for a number": (
        [1, "x", 2], {"problem": "regression"}, FailureClass.BAD_ROW, "'label' is 'x', and problem regression", "write a number",
    ),
    "numbers that are equal": (
        [1, 1], {"problem": "regression"}, FailureClass.EMPTY_DATASET, "all 2 rows have the label 1", "add rows",
    ),
    "different lengths": (
        [[1, 2], [1, 2], [3]], {"problem": "regression"}, FailureClass.BAD_ROW, "1 rows have 1, 2 rows have 2", "as many",
    ),
    "a class that is not named": (
        ["a", "c"], {"labels": ["a", "b"]}, FailureClass.BAD_ROW, "'label' is 'c'; classify.labels has a, b", "add it to",
    ),
    "a list for one class": (
        [["a"], ["b"]], {"problem": "singleLabel"}, FailureClass.BAD_ROW, "'label' is a list", "problem: multiLabel",
    ),
    "no label": (["a", None, "b"], {}, FailureClass.BAD_ROW, "line 2: 'label' is null", ""),
}  # fmt: skip
"""Labels -> the block, and the class, message and hint of the failure."""


@pytest.mark.parametrize("name", BAD)
def test_labels_that_teach_nothing_are_refused(name: str, tmp_path: Path, tiny: Path) -> None:
    labels, block, failure, message, hint = BAD[name]
    rows = [{"text": f"What is a plum? ({index})", "label": label} for index, label in enumerate(labels)]
    run = make_run(tmp_path, tiny, rows, method="classify", classify=block)
    with pytest.raises(RunFailure) as found:
        run.do(train.run)
    assert found.value.failure is failure
    assert message in found.value.message
    assert hint in (found.value.hint or "")


def test_named_labels_are_the_outputs_in_their_order_and_numbers_are_indices(tmp_path: Path, tiny: Path) -> None:
    rows = [{"sentence1": "plum", "sentence2": str(index), "label": index % 2} for index in range(8)]
    block = {"labels": ["worse", "better", "other"]}
    run = make_run(tmp_path, tiny, rows, {"maxSteps": 1}, method="classify", classify=block, tuner="full")
    [artifact] = run.do(train.run).artifacts or []
    download_directory(run.directory.storage, artifact.uri, tmp_path / "made")
    config = json.loads((tmp_path / "made" / "config.json").read_text())
    assert config["label2id"] == {"worse": 0, "better": 1, "other": 2}


def test_f1_and_correlation_are_those_of_their_definitions() -> None:
    import torch

    from tunesmith_runtime.train.trainers.classification import class_counts, correlation, macro_f1, moments

    predicted = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]]).bool()
    actual = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0]]).bool()
    # first class: precision 1/2, recall 1/2; second: precision 1, recall 1/2; the third does not occur
    assert macro_f1(class_counts(predicted, actual)) == pytest.approx((0.5 + 2 / 3) / 2)
    x, y = torch.randn(50, 1), torch.randn(50, 1)
    parts = moments(x[:20], y[:20]) + moments(x[20:], y[20:])
    assert correlation(parts) == pytest.approx(float(torch.corrcoef(torch.cat([x, y], dim=1).T)[0, 1]), abs=1e-6)
    assert correlation(moments(torch.ones(4, 1), y[:4])) == 0.0


def test_every_list_of_classes_is_told_from_the_others() -> None:
    assert len({tuple(each) for each in SEVERAL.values()}) == 4
