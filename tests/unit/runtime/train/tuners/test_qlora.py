"""QLoRA: a quantized base learns, resumes to the bit, and the adapter is merged into the base in full precision."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from safetensors.torch import load_file

from tests import tinymodel
from tests.unit.runtime.train.support import Run, make_run, stop_and_resume
from tunesmith_runtime import export, train
from tunesmith_runtime.train.models.files import load_model
from tunesmith_runtime.train.tuners.qlora import QLORA

ROWS = tinymodel.rows(96)
SETTINGS: dict[str, Any] = {"epochs": 2, "globalBatchSize": 16, "precision": "fp32", "learningRate": 1e-2}
RANK = 8


def qlora_run(folder: Path, model: Path, **qlora: Any) -> Run:
    return make_run(folder, model, ROWS, SETTINGS, tuner="qlora", lora={"rank": RANK}, qlora=qlora)


def losses(run: Run) -> list[float]:
    return [entry["loss"] for entry in run.log_history()]


def trainable(folder: Path, tiny: Path, compute: torch.dtype = torch.float32, **qlora: Any) -> Any:
    job = qlora_run(folder, tiny, **qlora).spec.fine_tune_job()
    return QLORA.apply(load_model(tiny, **QLORA.load_options(job, compute, "cpu")), job)


@pytest.mark.parametrize("quantization", ["nf4", pytest.param("int8", marks=pytest.mark.deep)])
def test_a_stopped_run_resumes_to_the_bit(
    quantization: str, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = qlora_run(tmp_path / "whole", tiny, quantization=quantization)
    expected = whole.do(train.run)
    assert losses(whole)[-1] < 0.8 * losses(whole)[0]
    run = qlora_run(tmp_path / "stopped", tiny, quantization=quantization)
    resumed, report = stop_and_resume(run, tiny, ROWS, 3, monkeypatch)
    assert losses(resumed) == losses(whole)
    assert [each.digest for each in report.artifacts or []] == [each.digest for each in expected.artifacts or []]


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_the_adapter_is_merged_into_the_base_before_its_quantization(
    quantization: str, tmp_path: Path, tiny: Path
) -> None:
    run = qlora_run(tmp_path, tiny, quantization=quantization)
    run.do(train.run)
    run.do(export.run)
    base = load_file(tiny / "model.safetensors")
    merged = load_file(run.work.run / "merged" / "model.safetensors")
    changed = {name: merged[name] - weight for name, weight in base.items() if not merged[name].equal(weight)}
    assert len(changed) == 2 * 7
    assert all(int(torch.linalg.matrix_rank(update, rtol=1e-3)) <= RANK for update in changed.values())


def test_linear_layers_are_quantized_and_all_other_weights_are_in_float32(tmp_path: Path, tiny: Path) -> None:
    model = trainable(tmp_path, tiny, torch.bfloat16)
    kinds = Counter((type(weight).__name__, weight.dtype) for weight in model.get_base_model().parameters())
    assert kinds == {("Params4bit", torch.uint8): 14, ("Parameter", torch.float32): 2 * 14 + 10}
    layer = next(each for each in model.modules() if isinstance(each, bitsandbytes.nn.Linear4bit))
    assert (layer.weight.quant_type, layer.weight.quant_state.nested, layer.compute_dtype) == (
        "nf4",
        True,
        torch.bfloat16,
    )


def test_double_quantization_can_be_turned_off(tmp_path: Path, tiny: Path) -> None:
    model = trainable(tmp_path, tiny, doubleQuantization=False)
    layer = next(each for each in model.modules() if isinstance(each, bitsandbytes.nn.Linear4bit))
    assert not layer.weight.quant_state.nested


def test_an_evaluation_leaves_the_quantized_weights_as_they_are(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bitsandbytes would repack them on a CPU with AVX512-BF16."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    model = trainable(tmp_path, tiny)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    with torch.no_grad():
        model.eval()(input_ids=torch.arange(16)[None])
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_trainers_keep_the_adapter_in_float32(tmp_path: Path, tiny: Path) -> None:
    run = qlora_run(tmp_path, tiny)
    run.do(train.run)
    weights = load_file(run.work.run / "adapter" / "adapter_model.safetensors").values()
    assert {weight.dtype for weight in weights} == {torch.float32}
    assert any(not weight.bfloat16().float().equal(weight) for weight in weights)
