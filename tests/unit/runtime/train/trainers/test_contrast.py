"""The trainer of embedding models: what it records of a micro batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModel, TrainingArguments

from tunesmith_api.methods import Embed
from tunesmith_runtime.data.encoders.texts import TextRole
from tunesmith_runtime.data.examples import IGNORED
from tunesmith_runtime.train.methods.embed import info_nce
from tunesmith_runtime.train.trainers.contrast import ContrastTrainer, collate_texts

BLANK: dict[str, Any] = {"input_ids": [[0, 0]], "labels": [[IGNORED, IGNORED]], "value": [None], "columns": [None]}
"""What fills up the batches of several processes."""


def pair(anchor: int, positive: int, score: float | None = None) -> dict[str, Any]:
    """An encoded row of two texts."""
    ids = [[anchor, 5], [positive, 6, 7]]
    return {"input_ids": ids, "labels": ids, "value": [score], "columns": [TextRole.ANCHOR, TextRole.POSITIVE]}


@pytest.fixture
def trainer(tiny: Path, tmp_path: Path) -> ContrastTrainer:
    model = AutoModel.from_pretrained(tiny).train()
    return ContrastTrainer(
        model=model,
        args=TrainingArguments(str(tmp_path), use_cpu=True, report_to="none", remove_unused_columns=False),
        train_dataset=Dataset.from_list([BLANK]),
        embed=Embed(),
        sizes=[model.config.hidden_size],
        loss=lambda similarities, candidates, _: info_nce(similarities, candidates, temperature=0.1),
    )


@pytest.mark.parametrize(
    ("rows", "figures"),
    [
        ([pair(1, 2), pair(3, 4)], {"recall"}),
        ([pair(1, 2, 0.5), pair(3, 4, 0.1)], {"correlation"}),
        ([pair(1, 2), pair(3, 4), BLANK], {"recall"}),
        ([BLANK, BLANK], set()),
    ],
    ids=["pairs", "pairs with scores", "pairs and a blank row", "blank rows"],
)
def test_a_micro_batch_is_measured_by_its_rows(
    trainer: ContrastTrainer, rows: list[dict[str, Any]], figures: set[str]
) -> None:
    """Blank rows alone cannot show whether the rows of the training have scores."""
    loss = trainer.compute_loss(trainer.model, collate_texts(rows, 0))
    logs: dict[str, float] = {}
    trainer.log(logs)
    assert torch.isfinite(loss)
    assert logs.keys() & {"recall", "correlation"} == figures
