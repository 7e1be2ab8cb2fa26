"""`lora.init: loftq`: base and adapter begin nearer to the base in full precision than the quantized base, which the published adapter fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from peft.utils.integrations import dequantize_module_weight
from safetensors.torch import load_file, save_file

from tests import tinymodel
from tests.unit.runtime.train.support import Run, make_run, stop_and_resume
from tests.unit.runtime.train.tuners.test_targets import job, model_of
from tunesmith_api.compatibility import refusals
from tunesmith_runtime import export, train
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.modelcheck.loading import with_adapter
from tunesmith_runtime.train.models.files import load_model, load_tokenizer, save_trained
from tunesmith_runtime.train.tuners.qlora import QLORA
from tunesmith_runtime.train.tuners.start import as_trained

RANK = 8
ROWS = tinymodel.rows(48)
IDS = torch.arange(3, 40)[None]


def settings(**lora: Any) -> Any:
    return job(tuner="qlora", lora={"rank": RANK, "alpha": 24, "init": "loftq", **lora})


def quantized(tiny: Path, spec: Any) -> Any:
    return load_model(tiny, **QLORA.load_options(spec, torch.float32, "cpu"))


def base(tiny: Path) -> Any:
    return load_model(tiny, dtype=torch.float32).eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).square().mean().sqrt())


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_each_layer_begins_with_the_best_correction_of_its_rank(quantization: str, tiny: Path) -> None:
    spec = job(tuner="qlora", lora={"rank": RANK, "alpha": 24, "init": "loftq"}, qlora={"quantization": quantization})
    model = QLORA.apply(quantized(tiny, spec), spec)
    stored = load_file(tiny / "model.safetensors")
    layers = {name: each for name, each in model.named_modules() if hasattr(each, "lora_A")}
    assert len(layers) == 14
    for name, layer in layers.items():
        rounded = dequantize_module_weight(layer.get_base_layer()).float()
        error = stored[f"{name.removeprefix('base_model.model.')}.weight"] - rounded
        left = error - layer.get_delta_weight("default").detach()
        best = torch.linalg.svdvals(error)[RANK:].square().sum().sqrt()
        assert float(left.norm()) == pytest.approx(float(best), rel=1e-3)
        assert left.norm() < 0.95 * error.norm()


def test_quantized_base_and_adapter_are_nearer_to_the_base_than_without(tiny: Path) -> None:
    spec = settings()
    expected = logits(base(tiny))
    assert distance(logits(QLORA.apply(quantized(tiny, spec), spec)), expected) < 0.9 * distance(
        logits(quantized(tiny, spec)), expected
    )


@pytest.mark.parametrize("rslora", [False, True])
def test_what_is_published_fits_the_base_in_full_precision(rslora: bool, tmp_path: Path, tiny: Path) -> None:
    """Beside it, it computes what was trained, but for the rest of the error; as trained, it computes that beside the quantized base."""
    spec = settings(useRslora=rslora)
    model = QLORA.apply(quantized(tiny, spec), spec)
    start = {name: layer.get_delta_weight("default").detach() for name, layer in layers_of(model).items()}
    fit = QLORA.record_start(model, spec)
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-2)
    for _ in range(3):
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    trained = logits(model)
    learned = {
        name: layer.get_delta_weight("default").detach() - start[name] for name, layer in layers_of(model).items()
    }
    folder = save_trained(model, load_tokenizer(tiny), tmp_path / "adapter", tiny, "s3://models/tiny")
    fit(folder)
    published = with_adapter(base(tiny), "default", folder)
    for name, layer in layers_of(published).items():
        assert torch.allclose(layer.get_delta_weight("default"), learned[name], atol=1e-5)
    plain = job(tuner="qlora", lora={"rank": RANK, "alpha": 24})
    error = distance(logits(quantized(tiny, plain)), logits(base(tiny)))
    assert distance(logits(published), trained) < error
    beside = with_adapter(quantized(tiny, plain), "default", as_trained(folder, tmp_path / "trained"))
    assert distance(logits(beside), trained) < 1e-4 * float(trained.abs().max())


def layers_of(model: Any) -> dict[str, Any]:
    return {name: each for name, each in model.named_modules() if hasattr(each, "lora_A")}


def loftq_run(folder: Path, tiny: Path) -> Run:
    training = {"maxSteps": 6, "globalBatchSize": 8, "precision": "fp32", "learningRate": 1e-2}
    return make_run(folder, tiny, ROWS, training, tuner="qlora", lora={"rank": RANK, "init": "loftq"})


def test_a_stopped_run_resumes_exactly_and_is_merged(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = loftq_run(tmp_path / "whole", tiny)
    expected = whole.do(train.run)
    resumed, report = stop_and_resume(loftq_run(tmp_path / "stopped", tiny), tiny, ROWS, 3, monkeypatch)
    assert [entry["loss"] for entry in resumed.log_history()] == [entry["loss"] for entry in whole.log_history()]
    assert [each.digest for each in report.artifacts or []] == [each.digest for each in expected.artifacts or []]
    merged = resumed.do(export.run)  # compares the merged model with base and adapter, and with what was trained
    assert [artifact.name for artifact in merged.artifacts or []] == ["adapter", "merged"]


def test_files_without_the_weights_of_layers_are_refused(tmp_path: Path, tiny: Path) -> None:
    spec = settings()
    model = quantized(tiny, spec)
    save_file({"other.weight": torch.ones(1)}, tmp_path / "model.safetensors")
    model.name_or_path = str(tmp_path)
    with pytest.raises(RunFailure, match="the files of the model have none of that name"):
        QLORA.apply(model, spec)


def test_layers_are_those_of_bitsandbytes(tiny: Path) -> None:
    spec = settings()
    kinds = {type(each.get_base_layer()) for each in layers_of(QLORA.apply(quantized(tiny, spec), spec)).values()}
    assert kinds == {bitsandbytes.nn.Linear4bit}


@pytest.mark.parametrize("tuner", ["lora", "dora", "oft"])
def test_a_base_that_is_not_quantized_has_no_error_to_begin_with(tuner: str) -> None:
    (found,) = refusals("FineTuneJob", {"tuner": tuner, "lora": {"init": "loftq"}})
    assert found.message.startswith("lora.init loftq with tuner")


def test_a_transposed_weight_is_refused() -> None:
    with pytest.raises(RunFailure, match=r"lora\.init cannot be computed for .*, a Conv1D"):
        QLORA.check(model_of("gpt2"), settings(rank=4), ())
