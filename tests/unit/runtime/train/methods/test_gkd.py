"""Method gkd: its loss by the formula, its samples, and a student that nears its teacher."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests import tinymodel
from tests.unit.runtime.train.support import Run, make_run, stop_and_resume
from tests.unit.runtime.train.worlds import train_together
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import ModelRole, Outcome
from tunesmith_runtime import export, train
from tunesmith_runtime.data.examples import IGNORED
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.methods.gkd import loss

ROWS = tinymodel.rows(64)
SETTINGS: dict[str, Any] = {
    "globalBatchSize": 16,
    "microBatchSize": 8,
    "learningRate": 1e-2,
    "maxLength": 64,
    "epochs": 2,
}
GKD: dict[str, Any] = {"teacher": {"uri": "s3://models/teacher"}, "maxCompletionLength": 8}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with other weights than the student, whose probabilities are far from uniform."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tinymodel.make_model(tmp_path_factory.mktemp("teacher"), seed=5)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.model.norm.weight *= 4
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    return folder


def with_teacher(run: Run, teacher: Path) -> Run:
    run.work.model(ModelRole.TEACHER).symlink_to(teacher)
    return run


def gkd_run(folder: Path, model: Path, teacher: Path, gkd: dict[str, Any] | None = None, **spec: Any) -> Run:
    training, rows = SETTINGS | spec.pop("training", {}), spec.pop("rows", ROWS)
    return with_teacher(make_run(folder, model, rows, training, method="gkd", gkd=GKD | (gkd or {}), **spec), teacher)


def history(run: Run, metric: str) -> list[float]:
    return [entry[metric] for entry in run.log_history(metric)]


@pytest.mark.parametrize(("share", "beta", "most"), [(0.0, 0.0, 0.5), (1.0, 0.5, 0.9), (0.5, 1.0, 0.85)])
def test_the_student_nears_its_teacher(
    share: float, beta: float, most: float, tmp_path: Path, tiny: Path, teacher: Path
) -> None:
    training = {"epochs": 3}
    run = gkd_run(tmp_path, tiny, teacher, {"lambda": share, "beta": beta}, training=training, tuner="full")
    assert run.do(train.run).outcome is Outcome.SUCCEEDED
    kl = history(run, "kl")
    assert len(kl) == 3 * 64 // 16
    assert sum(kl[-3:]) / 3 < most * kl[0]
    assert bool(history(run, "sampling_share")) is (share > 0)


def test_a_stopped_run_samples_and_learns_the_same(
    tmp_path: Path, tiny: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"training": {"epochs": 1}, "lora": {"dropout": 0.1}}
    whole = gkd_run(tmp_path / "whole", tiny, teacher, **options)
    expected = whole.do(train.run)
    run = gkd_run(tmp_path / "stopped", tiny, teacher, **options)
    resumed, report = stop_and_resume(run, tiny, ROWS, 2, monkeypatch, lambda pod: with_teacher(pod, teacher))
    assert report.resumed_from_step
    assert history(resumed, "kl") == history(whole, "kl")
    assert history(resumed, "loss") == history(whole, "loss")
    assert [each.digest for each in report.artifacts or []] == [each.digest for each in expected.artifacts or []]
    assert [each.name for each in resumed.do(export.run).artifacts or []] == ["adapter", "merged"]


def test_the_loss_of_a_step_does_not_depend_on_its_micro_batches(tmp_path: Path, tiny: Path, teacher: Path) -> None:
    losses = []
    for size in (16, 2):
        training = {"maxSteps": 1, "microBatchSize": size}
        run = gkd_run(
            tmp_path / str(size), tiny, teacher, {"lambda": 0}, training=training, validation={"fraction": 0.25}
        )
        run.do(train.run)
        losses.append(history(run, "loss")[0])
        assert history(run, "eval_kl")[-1] > 0
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.deep
def test_two_processes_compute_the_steps_of_one(tmp_path: Path, tiny: Path, teacher: Path) -> None:
    """They sample the same answers; the last step of an epoch is filled up with blank rows."""
    training = {"microBatchSize": 4, "precision": "fp32", "epochs": 2, "learningRate": 1e-3}
    runs = [
        gkd_run(
            tmp_path / f"{count}", tiny, teacher, {"lambda": 0.5}, training=training, rows=ROWS[:22], tuner="full",
            validation={"fraction": 0.2},
        )
        for count in (1, 2)
    ]  # fmt: skip
    reports = [train_together(run, count)[0].report for count, run in enumerate(runs, start=1)]
    one, two = runs
    for metric in ("loss", "kl", "eval_loss", "eval_kl"):
        assert history(two, metric) == pytest.approx(history(one, metric), abs=1e-5), metric
    metrics = [report and report.metrics for report in reports]
    assert metrics[0]
    assert metrics[1]
    assert (metrics[1].steps, metrics[1].tokens) == (4, metrics[0].tokens)


def test_the_loss_is_the_divergence_of_the_paper() -> None:
    import torch

    t, s = (0.5, 0.25, 0.25), (0.25, 0.25, 0.5)
    teacher, student = (torch.tensor([each]).log() for each in (t, s))

    def kl(first: tuple[float, ...], second: tuple[float, ...]) -> float:
        return sum(a * math.log(a / b) for a, b in zip(first, second, strict=True))

    mixture = tuple(0.2 * a + 0.8 * b for a, b in zip(t, s, strict=True))
    assert loss(student, teacher, 0.2).tolist() == pytest.approx([0.2 * kl(t, mixture) + 0.8 * kl(s, mixture)])
    skewed = (0.1, 0.1, 0.8)
    assert loss(student, torch.tensor([skewed]).log(), 0).tolist() == pytest.approx([kl(skewed, s)])
    assert loss(student, torch.tensor([skewed]).log(), 1).tolist() == pytest.approx([kl(s, skewed)])


def test_a_sampled_answer_replaces_the_last_one_alone(tmp_path: Path, tiny: Path, teacher: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, TrainingArguments

    from tunesmith_runtime.train.rollouts.sampler import Sampling
    from tunesmith_runtime.train.trainers.distillation import DistillationTrainer, Objective, collate

    trainer = DistillationTrainer(
        model=AutoModelForCausalLM.from_pretrained(tiny),
        args=TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none"),
        objective=Objective(lambda mine, theirs: (mine - theirs).sum(dim=1), None, sampled_share=1.0),
        sampling=Sampling(max_tokens=4, stop_ids=[2], pad_token=0),
    )
    ids = [40, 41, 42, 2, 43, 44, 45, 46, 47, 48, 49, 2]
    labels = [IGNORED, IGNORED, 42, 2, IGNORED, IGNORED, *ids[6:]]
    batch = collate([{"input_ids": ids, "labels": labels}, {"input_ids": [7, 8], "labels": [7, 8]}], 0)
    found = trainer._with_samples(batch, 0)
    answer = found["input_ids"][0, 6:]
    assert found["input_ids"][0, :6].tolist() == ids[:6]
    assert found["labels"][0].tolist() == [*[IGNORED] * 6, *answer.tolist()]
    assert 1 <= len(answer) <= 4
    assert not torch.equal(answer, batch["input_ids"][0, 6 : 6 + len(answer)])
    assert found["labels"][1, :2].tolist() == [7, 8]  # a row without a prompt keeps its answer


def test_a_teacher_with_other_tokens_is_refused(tmp_path: Path, tiny: Path) -> None:
    from transformers import AutoTokenizer

    other = tinymodel.make_model(tmp_path / "other", seed=5)
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.add_tokens(["<think>"])
    tokenizer.save_pretrained(other)
    run = gkd_run(tmp_path / "run", tiny, other)
    with pytest.raises(
        RunFailure, match="'<think>' is token 460 of the teacher and no token of the student"
    ) as failure:
        run.do(train.run)
    assert failure.value.failure is FailureClass.BAD_SPEC
