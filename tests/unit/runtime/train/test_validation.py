"""The validation loss: each token or row counts once, however many batches, sets and processes there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import tinymodel
from tests.unit.runtime.train.methods.preferences import feedback, preferences
from tests.unit.runtime.train.methods.texts import labelled, pairs, scored
from tests.unit.runtime.train.support import Run, make_run
from tests.unit.runtime.train.worlds import train_together
from tunesmith_api.finetunejob_status import Metrics
from tunesmith_api.run import ModelRole
from tunesmith_runtime import train
from tunesmith_runtime.data.examples import IGNORED
from tunesmith_runtime.data.load import open_data
from tunesmith_runtime.train.rows.batches import InOrder
from tunesmith_runtime.workdir import DataFile

SIZES = (5, 6)
"""Rows of the validation sets: no multiple of a batch, let alone of a batch of each process."""
SETTINGS: dict[str, Any] = {
    "maxSteps": 1, "globalBatchSize": 4, "microBatchSize": 2, "precision": "fp32", "learningRate": 1e-7,
}  # fmt: skip
"""One step that changes next to nothing: losses are compared, not trainings."""
CHATS = [
    {"messages": [{"role": "user", "content": f"Count ({row})."}, {"role": "assistant", "content": "tin " * (1 + row % 7)}]}
    for row in range(19)
]  # fmt: skip
ROWS: Mapping[str, tuple[str, Sequence[dict[str, Any]]]] = {
    "sft": ("sft", CHATS),
    "pretrain": ("pretrain", [{"text": "a kiwi is a fruit " * (1 + row % 7)} for row in range(19)]),
    **{name: (name, preferences(19)) for name in ("dpo", "orpo", "simpo", "cpo", "reward")},
    "kto": ("kto", feedback(19)),
    "gkd": ("gkd", CHATS),
    "classify": ("classify", labelled(19)),
    "embed": ("embed", pairs(19, negatives=True)),
    "embed scored": ("embed", scored(19)),
    "rerank": ("rerank", pairs(19, negatives=True)),
}
"""Method and rows of each case."""


def validated_run(folder: Path, model: Path, case: str) -> Run:
    """Return a run with two validation sets of SIZES."""
    method, rows = ROWS[case]
    spec: dict[str, Any] = {}
    datasets = [{"uri": f"s3://data/{index}.jsonl"} for index in range(len(SIZES))]
    trained = len(rows) - sum(SIZES)
    if method == "gkd":
        spec = {"gkd": {"teacher": {"uri": "s3://models/teacher"}, "maxCompletionLength": 4}}
    run = make_run(
        folder / "run", model, [*rows[:trained]], SETTINGS, method=method, validation={"datasets": datasets}, tuner="full", **spec
    )  # fmt: skip
    if method == "gkd":
        run.work.model(ModelRole.TEACHER).symlink_to(tinymodel.make_model(folder / "teacher", seed=5))
    files, start = run.work.data_files(), trained
    for index, size in enumerate(SIZES):
        tinymodel.write_rows(run.work.data / f"{index}.jsonl", [*rows[start : start + size]])
        files.append(DataFile(path=f"{index}.jsonl", uri=f"s3://data/{index}.jsonl", validation=index))
        start += size
    run.work.write_data_files(files)
    return run


def measured(run: Run, processes: int) -> Metrics:
    ended = train_together(run, processes)[0]
    assert ended.report, ended
    assert ended.report.metrics
    return ended.report.metrics


def test_each_labelled_token_counts_the_same(tiny: Path, tmp_path: Path) -> None:
    """The loss is that of single rows, which the published model gives, weighed by their tokens."""
    import torch
    from transformers import AutoModelForCausalLM

    run = validated_run(tmp_path, tiny, "sft")
    metrics = run.do(train.run).metrics
    model, held_out = AutoModelForCausalLM.from_pretrained(run.work.run / "model"), open_data(run.work).validation
    assert held_out is not None
    found: list[tuple[float, int]] = []
    for row in held_out:
        ids, labels = (torch.tensor([row[name]]) for name in ("input_ids", "labels"))
        with torch.no_grad():
            loss = float(model(input_ids=ids, labels=labels).loss)
        found.append((loss, int((labels[:, 1:] != IGNORED).sum())))
    expected = [mean(found[: SIZES[0]]), mean(found[SIZES[0] :])]
    assert metrics
    assert metrics.eval_losses == pytest.approx(expected, abs=1e-5)
    assert metrics.eval_loss == pytest.approx(mean(found), abs=1e-5)
    assert abs(sum(loss for loss, _ in found) / len(found) - mean(found)) > 1e-3  # rows of equal weights would show


def mean(losses: Sequence[tuple[float, int]]) -> float:
    """Return the mean of losses with their weights."""
    return sum(loss * count for loss, count in losses) / sum(count for _, count in losses)


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case == "embed" else pytest.mark.deep) for case in ROWS]
)
def test_two_processes_measure_what_one_does(case: str, tiny: Path, tmp_path: Path) -> None:
    one, two = (measured(validated_run(tmp_path / f"{count}", tiny, case), count) for count in (1, 2))
    assert two.eval_losses == pytest.approx(one.eval_losses, abs=1e-5)
    assert two.eval_loss == pytest.approx(one.eval_loss, abs=1e-5)
    figures = ("eval_accuracy", "eval_f1", "eval_correlation", "eval_recall", "eval_mrr")
    assert [getattr(two, name) for name in figures] == pytest.approx([getattr(one, name) for name in figures])


@given(rows=st.integers(0, 60), step=st.integers(1, 16))
def test_batches_in_order_are_filled_up_with_the_row_behind_them(rows: int, step: int) -> None:
    found = list(InOrder(rows, step))
    assert found[:rows] == [*range(rows)]
    assert set(found[rows:]) <= {rows}
    assert len(found) == len(InOrder(rows, step))
    assert len(found) % step == 0
    assert len(found) < rows + step
