"""Method pretrain: every token of plain text is learned, and everything after training is as for SFT."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.unit.runtime.train.support import Run, again, make_run
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import Outcome, ProgressReport, RunReport
from tunesmith_runtime import export, train
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.progress_push import ProgressPusher
from tunesmith_runtime.train import reporting

TEXT = "A kiwi is a fruit. A carrot is a vegetable. A salmon is a fish. "
ROWS = [{"text": TEXT[start:] + TEXT[:start]} for start in range(0, len(TEXT), 2)]
SETTINGS: dict[str, Any] = {"epochs": 4, "globalBatchSize": 4, "maxLength": 128}
METHOD: dict[str, Any] = {"method": "pretrain", "lora": {"dropout": 0.1}}


@pytest.fixture(scope="module")
def trained(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, RunReport]:
    """A run that is never interrupted."""
    run = make_run(tmp_path_factory.mktemp("pretrain"), tiny, ROWS, SETTINGS, **METHOD)
    return run, run.do(train.run)


def losses(run: Run) -> list[float]:
    return [entry["loss"] for entry in run.log_history()]


def mean_loss(model_folder: Path, adapter: Path | None = None) -> float:
    """The loss per token of a model on the text, measured by transformers."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(model_folder)
    if adapter:
        model = PeftModel.from_pretrained(model, str(adapter))
    ids = AutoTokenizer.from_pretrained(model_folder)(TEXT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return float(model(input_ids=ids, labels=ids).loss)


def test_the_loss_on_all_tokens_falls(trained: tuple[Run, RunReport], tiny: Path) -> None:
    run, report = trained
    assert report.outcome is Outcome.SUCCEEDED
    assert losses(run)[-1] < 0.7 * losses(run)[0]
    assert mean_loss(tiny, run.work.run / "adapter") < 0.7 * mean_loss(tiny)


def test_the_first_loss_is_that_of_the_base_on_every_token_and_the_end_of_text(tmp_path: Path, tiny: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    settings = {"maxSteps": 1, "globalBatchSize": 1, "precision": "fp32"}
    run = make_run(tmp_path, tiny, [{"text": TEXT}], SETTINGS | settings, method="pretrain")
    run.do(train.run)
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    ids = torch.tensor([[*tokenizer(TEXT)["input_ids"], tokenizer.eos_token_id]])
    with torch.no_grad():
        expected = float(AutoModelForCausalLM.from_pretrained(tiny)(input_ids=ids, labels=ids).loss)
    assert losses(run) == [pytest.approx(expected, rel=1e-4)]


def test_a_stopped_run_resumes_exactly(
    trained: tuple[Run, RunReport], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StopAfterStep2(ProgressPusher):
        def push(self, report: ProgressReport) -> None:
            if report.step == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(reporting, "SECONDS_BETWEEN_REPORTS", 0.0)
    uninterrupted, expected = trained
    run = make_run(tmp_path, tiny, ROWS, SETTINGS, **METHOD)
    assert train.run(run.spec, run.work, StopAfterStep2(None, None)).outcome is Outcome.PREEMPTED
    report = again(run, tiny, ROWS, 2).do(train.run)
    assert report.resumed_from_step == 3
    assert losses(run) == losses(uninterrupted)
    assert report.artifacts
    assert expected.artifacts
    assert report.artifacts[0].digest == expected.artifacts[0].digest


def test_the_adapter_is_merged_and_published(trained: tuple[Run, RunReport], tiny: Path) -> None:
    run, _ = trained
    report = run.do(export.run)
    assert [artifact.name for artifact in report.artifacts or []] == ["adapter", "merged"]
    assert mean_loss(run.work.run / "merged") < 0.7 * mean_loss(tiny)


def test_rows_of_another_format_are_refused_with_the_format_to_use(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, [{"prompt": "A kiwi is a ", "completion": "fruit"}], SETTINGS, method="pretrain")
    with pytest.raises(RunFailure, match="method pretrain learns from") as failure:
        run.do(train.run)
    assert failure.value.failure is FailureClass.BAD_SPEC
