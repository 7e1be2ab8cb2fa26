"""A quantized base is fetched with the weights that its numbers stand for, and trained, merged and resumed like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests import tinymodel
from tests.unit.runtime.fetch.quantized import FORMATS, GROUP, config_of, files, quantize, weights
from tests.unit.runtime.fetch.support import Fetcher
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import RunSpec, Store
from tunesmith_runtime import export, train
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch.dequantize import dequantize
from tunesmith_runtime.fetch.model_files import StoredFiles
from tunesmith_runtime.fetch.model_sizes import read_architecture
from tunesmith_runtime.modelcheck.restorable import RESTORED, refuse_unrestorable
from tunesmith_runtime.progress_push import ProgressPusher

URI = "s3://models/small"
TRAINING: dict[str, Any] = {
    "maxSteps": 6,
    "globalBatchSize": 8,
    "maxLength": 64,
    "learningRate": 1e-2,
    "precision": "fp32",
}


@pytest.fixture
def fetcher(tmp_path: Path) -> Fetcher:
    return Fetcher(Store(uri=f"file://{tmp_path}/store"), tmp_path)


def tuning(fetcher: Fetcher, model: Path, **spec: Any) -> RunSpec:
    rows = tinymodel.write_rows(fetcher.folder / "rows.jsonl", tinymodel.rows(32)).read_bytes()
    uris = fetcher.put("quantized", files(model)), fetcher.put("data", {"train.jsonl": rows})
    return fetcher.job(*uris, training=TRAINING, **spec)


@pytest.mark.parametrize("form", FORMATS)
def test_each_weight_is_what_its_numbers_stand_for(form: str, tiny: Path, tmp_path: Path) -> None:
    expected = quantize(tiny, tmp_path / "quantized", form)
    (tmp_path / "plain").mkdir()
    dequantize(URI, tmp_path / "quantized", tmp_path / "plain")
    restored = weights(tmp_path / "plain")
    assert restored.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.allclose(restored[name], weight, rtol=1e-6, atol=1e-7), name
    assert "quantization_config" not in config_of(tmp_path / "plain")


def test_parts_of_a_weight_may_be_in_different_files(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = quantize(tiny, tmp_path / "quantized", "awq")
    (tmp_path / "plain").mkdir()
    tensors = load_file(tmp_path / "quantized/model.safetensors")
    (tmp_path / "quantized/model.safetensors").unlink()
    scales = {name for name in tensors if name.endswith(".scales")}
    for number, chosen in enumerate((scales, tensors.keys() - scales)):
        save_file({name: tensors[name] for name in chosen}, tmp_path / f"quantized/model-{number}.safetensors")
    monkeypatch.setattr("tunesmith_runtime.fetch.dequantize.FILE_BYTES", 300_000)
    dequantize(URI, tmp_path / "quantized", tmp_path / "plain")
    assert len(list((tmp_path / "plain").glob("*.safetensors"))) > 1
    AutoModelForCausalLM.from_pretrained(tmp_path / "plain")  # by the index
    assert weights(tmp_path / "plain").keys() == expected.keys()


def test_a_quantized_base_is_trained_merged_and_adopted(tiny: Path, tmp_path: Path, fetcher: Fetcher) -> None:
    expected = quantize(tiny, tmp_path / "quantized", "gptq")
    (tmp_path / "quantized/quantize_config.json").write_text('{"bits": 4}')  # as AutoGPTQ leaves one beside config.json
    spec = tuning(fetcher, tmp_path / "quantized")
    report, work = fetcher.fetch(spec)
    assert report.model_uri is not None
    assert report.model_uri.startswith(f"{fetcher.store.uri}/models/")
    assert not list(work.root.glob("*-quantized"))
    train.run(spec, work, ProgressPusher(None, None))
    finished = export.run(spec, work, ProgressPusher(None, None))
    assert [artifact.name for artifact in finished.artifacts or []] == ["adapter", "merged"]
    merged = load_file(work.run / "merged/model.safetensors")
    changed = {name for name, weight in expected.items() if not torch.equal(merged[name], weight)}
    assert len(changed) == 2 * 7, "the update is added to the restored weights of linear layers"
    assert all(float((merged[name] - expected[name]).abs().max()) < 0.2 for name in changed)
    assert "quantization_config" not in config_of(work.run / "merged")
    assert fetcher.fetch(spec)[0].outcome == "Adopted"


def test_every_pod_trains_the_same_bytes_which_are_restored_once(
    tiny: Path, tmp_path: Path, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantize(tiny, tmp_path / "quantized", "fp8 by blocks")
    spec = tuning(fetcher, tmp_path / "quantized")
    prepared, _ = fetcher.prepare(spec)
    monkeypatch.setattr("tunesmith_runtime.fetch.restored._dequantize", lambda *_: pytest.fail("restored again"))
    first, second = fetcher.fetch(spec), fetcher.fetch(spec)
    assert files(first[1].model()) == files(second[1].model())
    assert prepared.model_digest == first[0].model_digest == second[0].model_digest


def test_a_disk_without_room_for_the_restored_weights_is_refused_before_the_download(
    tiny: Path, tmp_path: Path, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantize(tiny, tmp_path / "quantized", "awq")
    spec = tuning(fetcher, tmp_path / "quantized", resources={"ephemeralStorage": "500Ki"})
    monkeypatch.setattr("tunesmith_runtime.fetch.restored._dequantize", lambda *_: pytest.fail("restored all the same"))
    with pytest.raises(
        RunFailure, match=r"with restored weights takes .* resources.ephemeralStorage 500Ki leaves"
    ) as failure:
        fetcher.prepare(spec)
    assert failure.value.failure is FailureClass.DISK_FULL


def test_the_estimate_counts_the_restored_weights(tiny: Path, tmp_path: Path, fetcher: Fetcher) -> None:
    parameters = sum(weight.numel() for weight in quantize(tiny, tmp_path / "quantized", "W4A16").values())
    estimate = fetcher.prepare(tuning(fetcher, tmp_path / "quantized"))[0].estimate
    assert estimate is not None
    assert estimate.parameters == parameters
    assert estimate.memory is not None
    assert (estimate.memory.weights or 0) >= 4 * parameters


def test_the_sizes_of_quantized_files_are_those_of_the_restored_weights(
    tiny: Path, tmp_path: Path, fetcher: Fetcher
) -> None:
    expected = quantize(tiny, tmp_path / "quantized", "gptq")
    uri = fetcher.put("quantized", files(tmp_path / "quantized"))
    parameters = sum(weight.numel() for weight in expected.values())
    assert read_architecture(StoredFiles(fetcher.storage, uri)).parameters == pytest.approx(parameters, rel=0.01)


@pytest.mark.parametrize(("tuner", "reason"), [("full", "from rounded ones"), ("qlora", "weights again")])
def test_tuners_that_do_not_go_with_rounded_weights_are_refused_before_the_import(
    tuner: str, reason: str, tiny: Path, tmp_path: Path, fetcher: Fetcher
) -> None:
    quantize(tiny, tmp_path / "quantized", "awq")
    with pytest.raises(RunFailure, match=rf"quantized is quantized \(awq\), and tuner {tuner} .*{reason}") as refused:
        fetcher.prepare(tuning(fetcher, tmp_path / "quantized", tuner=tuner))
    assert refused.value.failure is FailureClass.BAD_SPEC
    assert "set spec.tuner: lora, or name the unquantized model" in (refused.value.hint or "")
    assert not any(path.startswith("models/") for path in fetcher.objects())


def test_the_engine_transformers_answers_with_the_restored_weights(
    tiny: Path, tmp_path: Path, fetcher: Fetcher
) -> None:
    quantize(tiny, tmp_path / "quantized", "W8A8")
    uri = fetcher.put("quantized", files(tmp_path / "quantized"))
    spec = fetcher.spec("EvalJob", uri, {"benchmarks": [{"name": "mmlu"}], "engine": "transformers"})
    assert "quantization_config" not in config_of(fetcher.fetch(spec)[1].model())


def test_files_without_quantized_weights_are_refused(tiny: Path, tmp_path: Path, fetcher: Fetcher) -> None:
    quantize(tiny, tmp_path / "quantized", "awq")
    (tmp_path / "quantized/model.safetensors").write_bytes((tiny / "model.safetensors").read_bytes())
    with pytest.raises(RunFailure, match=r"the model is quantized \(awq\), but no weight in its files has a scale"):
        fetcher.fetch(tuning(fetcher, tmp_path / "quantized"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda parts: parts.pop("scales"), "belongs to a quantized weight that has no scale"),
        (lambda parts: parts.pop("qzeros"), "cannot be restored"),
        (lambda parts: parts.update(scales=parts["scales"][:, :1]), "cannot be restored"),
        (lambda parts: parts.update(scales=parts["scales"] * torch.inf), "NaN or infinite"),
    ],
    ids=["no scale", "no zero points", "too few scales", "infinite scales"],
)
def test_a_damaged_weight_is_named(change: Any, sentence: str, tiny: Path, tmp_path: Path, fetcher: Fetcher) -> None:
    quantize(tiny, tmp_path / "quantized", "gptq")
    file, module = tmp_path / "quantized/model.safetensors", "model.layers.1.mlp.up_proj."
    tensors = load_file(file)
    parts = {name.removeprefix(module): tensors.pop(name) for name in list(tensors) if name.startswith(module)}
    change(parts)
    save_file(tensors | {f"{module}{part}": tensor.contiguous() for part, tensor in parts.items()}, file)
    with pytest.raises(RunFailure, match=sentence) as refused:
        fetcher.fetch(tuning(fetcher, tmp_path / "quantized"))
    assert "layers.1.mlp.up_proj" in refused.value.message
    assert refused.value.failure is FailureClass.BAD_MODEL


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"quant_method": "gptq", "bits": 3}, "quantization_config.bits is 3; expected 2, 4, 8"),
        ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "is 'marlin'; expected gptq, gptq_v2"),
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, "quantization_config.version is 'gemv'; expected gemm"),
        ({"quant_method": "awq"}, "quantization_config.bits is missing; expected 4"),
        ({"quant_method": "compressed-tensors", "format": "marlin-24"}, "format is 'marlin-24'; expected pack-"),
        (
            {
                "quant_method": "compressed-tensors",
                "format": "pack-quantized",
                "transform_config": {"config_groups": {"R1": {}}},
            },
            "transform_config.config_groups is {'R1': {}}; expected none",
        ),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, r"the model is quantized \(bitsandbytes\)"),
        ({"quant_method": "hqq"}, r"the model is quantized \(hqq\)"),
    ],
)
def test_layouts_that_cannot_be_restored_are_refused_by_their_config(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RunFailure, match=sentence):
        refuse_unrestorable(URI, {"quantization_config": settings})


def test_the_methods_that_are_accepted_are_those_that_can_be_restored() -> None:
    from tunesmith_runtime.fetch.dequantize import FORMATS as READERS

    assert READERS.keys() == RESTORED.keys()


@pytest.mark.deep
@pytest.mark.parametrize("scheme", ["W4A16", "W4A16_ASYM", "W8A8", "FP8_DYNAMIC", "FP8_BLOCK"])
def test_checkpoints_of_llm_compressor_are_restored_as_transformers_does(
    scheme: str, tiny: Path, tmp_path: Path
) -> None:
    from compressed_tensors.quantization import preset_name_to_scheme
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from transformers import CompressedTensorsConfig

    model = AutoModelForCausalLM.from_pretrained(tiny)
    settings = preset_name_to_scheme(scheme, ["Linear"])
    if settings.weights.group_size:
        settings.weights.group_size = GROUP  # a row of the tiny model has 96 numbers
    oneshot(model=model, recipe=QuantizationModifier(config_groups={"all": settings}, ignore=["lm_head"]))
    model.save_pretrained(tmp_path / "quantized", save_compressed=True)
    (tmp_path / "plain").mkdir()
    dequantize(URI, tmp_path / "quantized", tmp_path / "plain")
    expected = AutoModelForCausalLM.from_pretrained(
        tmp_path / "quantized", quantization_config=CompressedTensorsConfig(run_compressed=False)
    ).state_dict()
    for name, weight in weights(tmp_path / "plain").items():
        assert torch.allclose(weight, expected[name].to(weight.dtype), rtol=1e-3, atol=1e-5), name
