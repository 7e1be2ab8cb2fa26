"""`lora.init`: an adapter that begins with a part of its base is published for the base as it was."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from tests import tinymodel
from tests.unit.runtime.train.methods.preferences import preferences
from tests.unit.runtime.train.support import Run, make_run, stop_and_resume
from tests.unit.runtime.train.tuners.test_targets import job, model_of
from tunesmith_api.tuners import LoraInit
from tunesmith_runtime import export, train
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.modelcheck.adapters import changes_base
from tunesmith_runtime.modelcheck.loading import with_adapter
from tunesmith_runtime.train.models.files import load_model, load_tokenizer, save_trained
from tunesmith_runtime.train.tuners.lora import LORA

ROWS = tinymodel.rows(48)
STARTS = [each for each in LoraInit if each not in (LoraInit.DEFAULT, LoraInit.LOFTQ)]
"""Starts of tuner lora; those of eva have no effect before the first step."""
IDS = torch.arange(3, 40)[None]


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny)


def base(tiny: Path) -> Any:
    return load_model(tiny, dtype=torch.float32).eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def largest_difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max() / one.abs().max())


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("start", STARTS)
def test_the_published_adapter_computes_on_the_untouched_base_what_was_trained(
    start: LoraInit, rslora: bool, tmp_path: Path, tiny: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    settings = job(lora={"rank": 4, "alpha": 6, "init": start, "useRslora": rslora})
    untouched = logits(base(tiny))
    model = LORA.apply(base(tiny), settings, None, ())
    assert largest_difference(untouched, logits(model)) < 1e-5
    fit = LORA.record_start(model, settings)
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-2)
    for _ in range(3):
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    trained = logits(model)
    assert largest_difference(untouched, trained) > 1e-2
    folder = save_trained(model, tokenizer, tmp_path / "adapter", tiny, "s3://models/tiny")
    fit(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert changes_base(config) is None
    assert config["r"] == (8 if start.changes_base else 4)
    assert largest_difference(trained, logits(with_adapter(base(tiny), "default", folder))) < 1e-5


def start_run(folder: Path, tiny: Path, start: str, **spec: Any) -> Run:
    training = {"maxSteps": 6, "globalBatchSize": 8, "precision": "fp32", "learningRate": 1e-3, "warmupRatio": 0}
    rows = spec.pop("rows", ROWS)
    return make_run(folder, tiny, rows, training, lora={"rank": 4, "init": start}, **spec)


def losses(run: Run) -> list[float]:
    return [entry["loss"] for entry in run.log_history()]


@pytest.mark.parametrize("start", ["pissa", pytest.param("olora", marks=pytest.mark.deep)])
def test_a_stopped_run_resumes_exactly_and_is_merged(
    start: str, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = start_run(tmp_path / "whole", tiny, start)
    expected = whole.do(train.run)
    run = start_run(tmp_path / "stopped", tiny, start)
    resumed, report = stop_and_resume(run, tiny, ROWS, 3, monkeypatch)
    assert losses(resumed) == losses(whole)
    assert [each.digest for each in report.artifacts or []] == [each.digest for each in expected.artifacts or []]
    merged = resumed.do(export.run)  # compares the logits of the merged model with those of base and adapter
    assert [artifact.name for artifact in merged.artifacts or []] == ["adapter", "merged"]


def test_the_reference_of_dpo_is_the_base_before_the_start(tmp_path: Path, tiny: Path) -> None:
    run = start_run(tmp_path, tiny, "pissa", method="dpo", rows=preferences(16))
    run.do(train.run)
    begin, *later = run.log_history()
    assert begin["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert max(abs(entry["rewards/margins"]) for entry in later) > 1e-3


@pytest.mark.parametrize(
    ("kind", "lora", "why", "hint"),
    [
        ("llama", {"init": "pissa", "rank": 64}, "lora.rank 64 directions of", "set spec.lora.rank to at most 16"),
        ("gpt2", {"init": "olora"}, "a Conv1D", "remove spec.lora.init"),
        ("llama", {"init": "olora", "targetModules": ["q_proj"], "rank": 33}, "which has 32", "at most 32"),
        ("mixtral", {"init": "pissa", "targetModules": ["w1", "w2", "w3"]}, "computed for w1", "remove spec.lora.init"),
    ],
)
def test_a_start_that_does_not_fit_the_layers_is_refused(kind: str, lora: dict[str, Any], why: str, hint: str) -> None:
    with pytest.raises(RunFailure, match=r"lora\.init") as failure:
        LORA.check(model_of(kind), job(lora=lora), ())
    assert why in failure.value.message
    assert hint in str(failure.value.hint)
