"""Method embed: its losses by the formula, what it learns of held-out texts, and the model that it publishes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.unit.runtime.train.methods.texts import pairs, scored
from tests.unit.runtime.train.support import Run, make_run, stop_and_resume
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import Outcome
from tunesmith_runtime import export, train
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.storage.directory import download_directory

SETTINGS: dict[str, Any] = {"epochs": 6, "globalBatchSize": 16, "learningRate": 3e-3}
HELD_OUT: dict[str, Any] = {"fraction": 0.25}


def history(run: Run, metric: str) -> list[float]:
    return [entry[metric] for entry in run.log_history(metric)]


def test_the_loss_is_info_nce_over_all_candidates_but_equal_ones() -> None:
    import torch

    from tunesmith_runtime.train.methods.embed import info_nce
    from tunesmith_runtime.train.trainers.contrast import (
        ANCHOR,
        NEGATIVE,
        NONE,
        POSITIVE,
        Texts,
        candidates_of,
        cosines,
    )

    torch.manual_seed(0)
    vectors = torch.randn(3, 3, 4)
    roles = torch.tensor([[ANCHOR, POSITIVE, NEGATIVE], [ANCHOR, POSITIVE, NONE], [ANCHOR, POSITIVE, POSITIVE]])
    keys = torch.tensor([[1, 2, 3], [4, 2, 0], [5, 6, 7]])  # the positives of the first two rows are equal
    texts = Texts(vectors, roles, keys, torch.full((3,), math.nan))
    candidates = candidates_of(texts)
    losses = info_nce(cosines(texts.anchors, candidates.vectors), candidates, temperature=0.5).tolist()

    def similar(row: int, other: int, text: int) -> float:
        return math.exp(float(torch.cosine_similarity(vectors[row, 0], vectors[other, text], dim=0)) / 0.5)

    def loss(row: int, positive: tuple[int, int], negatives: list[tuple[int, int]]) -> float:
        right = similar(row, *positive)
        return -math.log(right / (right + sum(similar(row, *each) for each in negatives)))

    assert losses == pytest.approx(
        [
            loss(0, (0, 1), [(0, 2), (2, 1), (2, 2)]),
            loss(1, (1, 1), [(0, 2), (2, 1), (2, 2)]),
            (loss(2, (2, 1), [(0, 1), (0, 2), (1, 1)]) + loss(2, (2, 2), [(0, 1), (0, 2), (1, 1)])) / 2,
        ],
        rel=1e-5,
    )


@pytest.mark.parametrize(
    ("tuner", "negatives", "embed"),
    [("lora", False, {}), ("full", True, {"pooling": "mean", "dimensions": [32], "temperature": 0.1})],
)
def test_the_positive_of_a_held_out_text_is_nearest(
    tuner: str, negatives: bool, embed: dict[str, Any], tmp_path: Path, tiny: Path
) -> None:
    training = SETTINGS | ({"learningRate": 1e-3} if tuner == "full" else {})
    run = make_run(
        tmp_path, tiny, pairs(192, negatives=negatives), training, method="embed", tuner=tuner, embed=embed,
        validation=HELD_OUT,
    )  # fmt: skip
    report = run.do(train.run)
    assert report.outcome is Outcome.SUCCEEDED
    assert report.metrics is not None
    assert report.metrics.eval_recall is not None
    assert report.metrics.eval_recall > 0.9  # 1/16 by chance, as there are 16 words


def test_similarities_of_held_out_pairs_follow_their_scores(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, scored(192), SETTINGS, method="embed", validation=HELD_OUT)
    metrics = run.do(train.run).metrics
    assert metrics is not None
    assert metrics.eval_correlation is not None
    assert metrics.eval_correlation > 0.8
    assert metrics.eval_recall is None


@pytest.mark.parametrize(
    ("tuner", "pooling", "artifacts"),
    [
        ("lora", "lastToken", ["taskAdapter", "embeddingModel"]),
        pytest.param("full", "mean", ["embeddingModel"], marks=pytest.mark.deep),
    ],
)
def test_the_published_model_embeds_with_plain_transformers(
    tuner: str, pooling: str, artifacts: list[str], tmp_path: Path, tiny: Path
) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    training = SETTINGS | ({"learningRate": 1e-3} if tuner == "full" else {})
    run = make_run(tmp_path, tiny, pairs(192), training, method="embed", tuner=tuner, embed={"pooling": pooling})
    run.do(train.run)
    published = run.do(export.run).artifacts or []
    assert [each.name for each in published] == artifacts
    made = tmp_path / "made"
    download_directory(run.directory.storage, published[-1].uri, made)
    assert [each["type"].rsplit(".", 1)[-1] for each in json.loads((made / "modules.json").read_text())] == [
        "Transformer",
        "Pooling",
        "Normalize",
    ]
    pooled = json.loads((made / "1_Pooling/config.json").read_text())
    assert pooled["word_embedding_dimension"] == 96
    assert pooled["pooling_mode_lasttoken"] is (pooling == "lastToken")
    assert pooled["pooling_mode_mean_tokens"] is (pooling == "mean")
    model, tokenizer = AutoModel.from_pretrained(made), AutoTokenizer.from_pretrained(made)

    def embed(texts: list[str]) -> torch.Tensor:
        inputs = tokenizer(texts, padding=True, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**inputs).last_hidden_state
        mask = inputs["attention_mask"]
        if pooling == "mean":
            return (hidden * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return hidden[range(len(texts)), mask.sum(dim=1) - 1]

    rows = pairs(16, seed=1)
    similar = torch.cosine_similarity(
        embed([row["anchor"] for row in rows])[:, None], embed([row["positive"] for row in rows])[None], dim=2
    )
    assert float((similar.argmax(dim=1) == torch.arange(16)).float().mean()) > 0.8


def test_a_stopped_run_resumes_exactly(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, training = pairs(64, negatives=True), SETTINGS | {"epochs": 1, "microBatchSize": 8}
    options: dict[str, Any] = {"method": "embed", "lora": {"dropout": 0.1}, "validation": HELD_OUT}
    whole = make_run(tmp_path / "whole", tiny, rows, training, **options)
    expected = whole.do(train.run)
    run, report = stop_and_resume(
        make_run(tmp_path / "stopped", tiny, rows, training, **options), tiny, rows, 2, monkeypatch
    )
    assert report.resumed_from_step
    assert history(run, "loss") == history(whole, "loss")
    assert history(run, "eval_recall") == history(whole, "eval_recall")
    assert [each.digest for each in report.artifacts or []] == [each.digest for each in expected.artifacts or []]


BAD: dict[str, tuple[list[dict[str, Any]], dict[str, Any], FailureClass, str, str]] = {
    "a score that is no cosine": (
        [{"sentence1": "a", "sentence2": "b", "score": 4.2}], {}, FailureClass.BAD_ROW, "has the score 4.2", "divide the scores",
    ),
    "scores of some rows": (
        [*scored(2), *pairs(3)], {}, FailureClass.BAD_ROW, "2 of 5 rows have a score", "give each pair a score, or none",
    ),
    "vectors that are too long": (
        pairs(4), {"dimensions": [200]}, FailureClass.BAD_SPEC, "embed.dimensions has 200, and the vectors of the model have 96", "at most 96",
    ),
}  # fmt: skip
"""Rows and block -> the class, message and hint of the failure."""


@pytest.mark.parametrize("name", BAD)
def test_what_teaches_no_similarity_is_refused(name: str, tmp_path: Path, tiny: Path) -> None:
    rows, block, failure, message, hint = BAD[name]
    run = make_run(tmp_path, tiny, rows, method="embed", embed=block)
    with pytest.raises(RunFailure) as found:
        run.do(train.run)
    assert found.value.failure is failure
    assert message in found.value.message
    assert hint in (found.value.hint or "")
