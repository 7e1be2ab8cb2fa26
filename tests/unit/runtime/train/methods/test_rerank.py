"""Method rerank: its loss by the formula, what it learns of held-out queries, what it refuses, and the model that it publishes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.unit.runtime.train.methods.texts import WORDS, pairs, scored
from tests.unit.runtime.train.support import Run, make_run, stop_and_resume
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import Outcome
from tunesmith_runtime import export, train
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.storage.directory import download_directory

SETTINGS: dict[str, Any] = {"epochs": 6, "globalBatchSize": 16, "microBatchSize": 4, "learningRate": 3e-3, "seed": 1}
HELD_OUT: dict[str, Any] = {"fraction": 0.25}


def history(run: Run, metric: str) -> list[float]:
    return [entry[metric] for entry in run.log_history(metric)]


def test_the_loss_of_a_row_is_the_mean_over_its_positives_of_a_softmax_with_its_negatives() -> None:
    import torch

    from tunesmith_runtime.train.losses.listwise import listwise_loss

    scores = torch.tensor([[2.0, 0.5, 1.0, 9.0], [0.0, 1.0, -1.0, 0.5], [3.0, 9.0, 9.0, 9.0]])
    is_positive = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0]]).bool()
    is_negative = torch.tensor([[0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 0]]).bool()

    def loss(positive: float, *negatives: float) -> float:
        return -math.log(math.exp(positive) / (math.exp(positive) + sum(map(math.exp, negatives))))

    assert listwise_loss(scores, is_positive, is_negative).tolist() == pytest.approx(
        [loss(2.0, 0.5, 1.0), (loss(0.0, -1.0, 0.5) + loss(1.0, -1.0, 0.5)) / 2, 0.0], rel=1e-5
    )


@pytest.mark.parametrize(
    ("tuner", "negatives", "block"),
    [
        ("lora", False, {}),
        ("full", True, {"inBatchNegatives": False, "temperature": 0.5}),
    ],
)
def test_the_positive_of_a_held_out_query_ranks_first(
    tuner: str, negatives: bool, block: dict[str, Any], tmp_path: Path, tiny: Path
) -> None:
    training = SETTINGS | ({"learningRate": 1e-3} if tuner == "full" else {})
    run = make_run(
        tmp_path, tiny, pairs(192, negatives=negatives), training, method="rerank", tuner=tuner, rerank=block,
        validation=HELD_OUT,
    )  # fmt: skip
    report = run.do(train.run)
    assert report.outcome is Outcome.SUCCEEDED
    metrics = report.metrics
    assert metrics is not None
    assert metrics.eval_accuracy is not None
    assert metrics.eval_mrr is not None
    assert metrics.eval_accuracy > 0.9  # by chance 1/4 among the rows of a forward pass, 1/2 against the negative
    assert metrics.eval_accuracy <= metrics.eval_mrr


@pytest.mark.parametrize(("tuner", "artifacts"), [("lora", ["taskAdapter", "reranker"]), ("full", ["reranker"])])
def test_the_published_model_ranks_with_plain_transformers(
    tuner: str, artifacts: list[str], tmp_path: Path, tiny: Path
) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    training = SETTINGS | ({"learningRate": 1e-3} if tuner == "full" else {})
    run = make_run(tmp_path, tiny, pairs(192), training, method="rerank", tuner=tuner)
    run.do(train.run)
    published = run.do(export.run).artifacts or []
    assert [each.name for each in published] == artifacts
    made = tmp_path / "made"
    download_directory(run.directory.storage, published[-1].uri, made)
    config = json.loads((made / "config.json").read_text())
    assert len(config.get("id2label", {0: ""})) == 1
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(made), AutoTokenizer.from_pretrained(made)
    passages = [f"A {word}." for word in WORDS]
    right = 0
    for row in pairs(16, seed=1):
        with torch.no_grad():
            inputs = tokenizer([[row["anchor"], passage] for passage in passages], padding=True, return_tensors="pt")
            scores = model(**inputs).logits[:, 0]
        right += passages[int(scores.argmax())] == row["positive"]
    assert right > 0.8 * 16  # 1/16 by chance


def test_the_scores_of_a_published_model_are_those_of_the_trainer(tmp_path: Path, tiny: Path) -> None:
    """The tokens of `tokenizer(query, passage)`, and the score of a row in the middle of a padded batch."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from tunesmith_runtime.data.pair_template import pair_template
    from tunesmith_runtime.train.models.head import head_logits
    from tunesmith_runtime.train.trainers.ranking import Joiner

    rows = pairs(32, negatives=True)
    run = make_run(tmp_path, tiny, rows, SETTINGS | {"epochs": 1, "learningRate": 1e-3}, method="rerank", tuner="full")
    run.do(train.run)
    [published] = run.do(export.run).artifacts or []
    made = tmp_path / "made"
    download_directory(run.directory.storage, published.uri, made)
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(made), AutoTokenizer.from_pretrained(made)

    from datasets import Dataset

    from tunesmith_runtime.data.text_groups import TextGroups

    file = next(path for path in run.work.root.rglob("*.arrow") if path.stat().st_size)
    groups = TextGroups(Dataset.from_file(str(file)))
    batch = Joiner(pair_template(tokenizer), tokenizer.pad_token_id, 64, in_batch=True)([groups[0], groups[1]])
    own = {name: each[0] for name, each in batch.items()}
    trained = head_logits(model, model.score, own)[:, 0].tolist()
    texts = [rows[0]["positive"], rows[0]["negative"], rows[1]["positive"]]
    with torch.no_grad():
        inputs = tokenizer([[rows[0]["anchor"], text] for text in texts], padding=True, return_tensors="pt")
        served = model(**inputs).logits[:, 0].tolist()
    assert [ids[mask.bool()].tolist() for ids, mask in zip(own["input_ids"], own["attention_mask"], strict=True)] == [
        tokenizer(rows[0]["anchor"], text)["input_ids"] for text in texts
    ]
    assert trained == pytest.approx(served, abs=1e-5)


def test_a_stopped_run_resumes_exactly(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, training = pairs(64, negatives=True), SETTINGS | {"epochs": 1}
    options: dict[str, Any] = {"method": "rerank", "lora": {"dropout": 0.1}, "validation": HELD_OUT}
    whole = make_run(tmp_path / "whole", tiny, rows, training, **options)
    expected = whole.do(train.run)
    run, report = stop_and_resume(
        make_run(tmp_path / "stopped", tiny, rows, training, **options), tiny, rows, 2, monkeypatch
    )
    assert report.resumed_from_step
    assert history(run, "loss") == history(whole, "loss")
    assert history(run, "eval_mrr") == history(whole, "eval_mrr")
    assert [each.digest for each in report.artifacts or []] == [each.digest for each in expected.artifacts or []]


def test_accumulated_micro_batches_are_one_batch_without_negatives_of_other_rows(tmp_path: Path, tiny: Path) -> None:
    """Also of a last batch with fewer rows, and with one row in a forward pass."""
    losses = []
    for size in (8, 1):
        training = SETTINGS | {"epochs": 1, "globalBatchSize": 8, "microBatchSize": size}
        block = {"inBatchNegatives": False}
        run = make_run(tmp_path / str(size), tiny, pairs(21, negatives=True), training, method="rerank", rerank=block)
        run.do(train.run)
        losses.append(history(run, "loss"))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


BAD: dict[str, tuple[list[dict[str, Any]], dict[str, Any], FailureClass, str, str]] = {
    "scores": (
        scored(4), {}, FailureClass.BAD_ROW, "has the score 1, and method rerank learns from positive and negative passages",
        "use method classify with problem: regression",
    ),
    "positives alone": (
        [*pairs(3), *pairs(2, negatives=True)], {"rerank": {"inBatchNegatives": False}}, FailureClass.BAD_ROW,
        "3 of 5 rows have no negative passage", "remove spec.rerank.inBatchNegatives",
    ),
    "a single pair": (
        pairs(1), {}, FailureClass.BAD_ROW, "1 of 1 rows have no negative passage", "add rows with other queries",
    ),
    "a forward pass of one row": (
        pairs(4), {"training": {"microBatchSize": 1}}, FailureClass.BAD_SPEC,
        "gives a forward pass of 1 row, and method rerank compares each passage with those of other rows", "microBatchSize to 2 or more",
    ),
    "rows of another format": (
        [{"text": "a plum"}], {}, FailureClass.BAD_SPEC, "the row is of format text: method rerank learns from embedding", "",
    ),
}  # fmt: skip
"""Rows and settings -> the class, message and hint of the failure."""


@pytest.mark.parametrize("name", BAD)
def test_what_teaches_no_ranking_is_refused(name: str, tmp_path: Path, tiny: Path) -> None:
    rows, options, failure, message, hint = BAD[name]
    training = options.get("training", {})
    run = make_run(
        tmp_path, tiny, rows, training, method="rerank", **{k: v for k, v in options.items() if k != "training"}
    )
    with pytest.raises(RunFailure) as found:
        run.do(train.run)
    assert found.value.failure is failure
    assert message in found.value.message
    assert hint in (found.value.hint or "")
