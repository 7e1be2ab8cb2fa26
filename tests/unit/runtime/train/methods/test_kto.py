"""Method kto: its loss by the formula, its estimate of the KL divergence, and what it learns."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.unit.runtime.train.methods.preferences import feedback
from tests.unit.runtime.train.support import make_run, stop_and_resume
from tunesmith_api.failures import FailureClass
from tunesmith_api.methods import Kto
from tunesmith_api.run import Outcome
from tunesmith_runtime import train
from tunesmith_runtime.data.examples import IGNORED
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.methods.kto import loss

SETTINGS: dict[str, Any] = {"epochs": 2, "globalBatchSize": 16, "learningRate": 3e-3}


def test_the_loss_is_that_of_the_paper() -> None:
    import torch

    from tunesmith_runtime.train.trainers.feedback import Rated

    rated = Rated(torch.tensor([1.0, 1.0]), torch.tensor([True, False]), torch.tensor(0.25))
    sigmoid = 1 / (1 + math.exp(-0.2 * 0.75))
    found = loss(rated, Kto(beta=0.2, desirable_weight=2, undesirable_weight=0.5)).tolist()
    assert found == pytest.approx([2 * (1 - sigmoid), 0.5 * sigmoid])


def test_good_answers_become_likelier_than_bad_ones(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, feedback(192), SETTINGS, method="kto", validation={"fraction": 0.25})
    assert run.do(train.run).outcome is Outcome.SUCCEEDED
    last = run.log_history("eval_rewards/chosen")[-1]
    assert last["eval_rewards/chosen"] > last["eval_rewards/rejected"] + 0.1
    assert run.log_history("eval_loss")[-1]["eval_loss"] < run.log_history()[0]["loss"]
    assert all(entry["kl"] >= 0 for entry in run.log_history("kl"))


def test_the_first_loss_is_half_as_the_reference_is_the_model_before_the_training(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, feedback(16), SETTINGS | {"maxSteps": 1}, method="kto")
    run.do(train.run)
    [first] = run.log_history()
    assert (first["loss"], first["kl"]) == (pytest.approx(0.5, abs=1e-5), pytest.approx(0, abs=1e-5))


def test_a_stopped_run_resumes_exactly(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, options = feedback(64), {"method": "kto", "lora": {"dropout": 0.1}}
    whole = make_run(tmp_path / "whole", tiny, rows, SETTINGS, **options)
    expected = whole.do(train.run)
    run = make_run(tmp_path / "stopped", tiny, rows, SETTINGS, **options)
    resumed, report = stop_and_resume(run, tiny, rows, 2, monkeypatch)
    kl = [[entry["kl"] for entry in each.log_history("kl")] for each in (whole, resumed)]
    assert kl[0] == kl[1]
    assert [each.digest for each in report.artifacts or []] == [each.digest for each in expected.artifacts or []]


@pytest.mark.parametrize(("good", "kind", "missing"), [(True, "good", "false"), (False, "bad", "true")])
def test_answers_of_one_label_alone_are_refused(
    good: bool, kind: str, missing: str, tmp_path: Path, tiny: Path
) -> None:
    rows = [row | {"label": good} for row in feedback(8)]
    run = make_run(tmp_path, tiny, rows, SETTINGS, method="kto")
    with pytest.raises(RunFailure, match=f"all 8 rows have a {kind} answer") as failure:
        run.do(train.run)
    assert (failure.value.failure, failure.value.hint) == (
        FailureClass.EMPTY_DATASET,
        f"add rows with label: {missing}",
    )


def test_a_forward_pass_of_a_single_row_is_refused(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, feedback(8), SETTINGS | {"globalBatchSize": 1}, method="kto")
    with pytest.raises(RunFailure, match="gives a forward pass of 1 row") as failure:
        run.do(train.run)
    assert failure.value.failure is FailureClass.BAD_SPEC


def test_an_answer_is_set_behind_the_prompt_of_another_row() -> None:
    from tunesmith_runtime.train.trainers.feedback import collate_feedback

    rows = [
        {"input_ids": [1, 2, 8, 9], "labels": [IGNORED, IGNORED, 8, 9], "value": 1.0},
        {"input_ids": [3, 4, 5, 7], "labels": [IGNORED, IGNORED, IGNORED, 7], "value": 0.0},
    ]
    batch = collate_feedback(rows, 0)
    assert batch["is_good"].tolist() == [True, False]
    assert batch["input_ids"].tolist() == [[[1, 2, 8, 9], [1, 2, 7, 0]], [[3, 4, 5, 7], [3, 4, 5, 8]]]
    assert batch["labels"][:, 1].tolist() == [[IGNORED, IGNORED, 7, IGNORED], [IGNORED, IGNORED, IGNORED, 8]]


def rated(prompt: list[int], answer: list[int]) -> dict[str, Any]:
    """An encoded row."""
    return {"input_ids": [*prompt, *answer], "labels": [*[IGNORED] * len(prompt), *answer], "value": 1.0}


def neighbours(rows: list[dict[str, Any]]) -> list[list[int]]:
    """Return the answer that a batch sets behind the prompt of each row."""
    from tunesmith_runtime.train.trainers.feedback import collate_feedback

    batch = collate_feedback(rows, 0)
    return [[label for label in labels if label != IGNORED] for labels in batch["labels"][:, 1].tolist()]


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_no_row_of_a_batch_meets_its_own_answer(count: int) -> None:
    rows = [rated([index], [10 + index]) for index in range(count)]
    assert neighbours(rows) == [[10 + (index - 1) % count] for index in range(count)]


def test_a_neighbour_has_another_prompt_and_another_answer() -> None:
    rows = [rated([1], [11]), rated([1], [12]), rated([2], [11]), rated([3], [13])]
    assert neighbours(rows) == [[13], [13], [12], [11]]


@pytest.mark.parametrize(
    "rows",
    [
        [rated([1], [11])],
        [rated([1], [11]), rated([1], [12])],
        [rated([1], [11]), rated([2], [11])],
    ],
    ids=["a single row", "one prompt", "one answer"],
)
def test_a_row_without_a_neighbour_does_not_count_in_the_estimate(rows: list[dict[str, Any]]) -> None:
    assert neighbours(rows) == [[]] * len(rows)


def test_the_last_single_row_of_an_epoch_has_an_estimate_of_zero(tmp_path: Path, tiny: Path) -> None:
    training = SETTINGS | {"epochs": 3, "globalBatchSize": 2, "learningRate": 1e-2}
    run = make_run(tmp_path, tiny, feedback(7), training, method="kto")
    assert run.do(train.run).outcome is Outcome.SUCCEEDED
    estimates = [entry["kl"] for entry in run.log_history("kl")]
    assert len(estimates) == 3 * 4
    assert estimates[3::4] == [0.0] * 3
    assert max(estimates) > 0


def test_a_blank_row_counts_nothing_and_is_nobodys_neighbour() -> None:
    from tunesmith_runtime.train.trainers.feedback import collate_feedback
    from tunesmith_runtime.train.trainers.row_loss import is_row

    blank = {"input_ids": [0, 0], "labels": [IGNORED, IGNORED], "value": None}
    rows = [
        {"input_ids": [1, 8], "labels": [IGNORED, 8], "value": 1.0},
        {"input_ids": [3, 7], "labels": [IGNORED, 7], "value": 0.0},
    ]
    batch = collate_feedback([*rows, blank, blank], 0)
    assert is_row(batch).tolist() == [True, True, False, False]
    assert batch["input_ids"][:2, 1].tolist() == [[1, 7], [3, 8]]
