"""A fetched model is checked once for each content, and refused as early as possible."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.runtime.fetch.support import ADAPTER, ADAPTER_CONFIG, CONFIG, MODEL, ROWS, Fetcher
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import RunSpec, Store
from tunesmith_runtime.errors import RunFailure

QUANTIZED = {**MODEL, "config.json": json.dumps(CONFIG | {"quantization_config": {"quant_method": "awq"}}).encode()}
DEEPER = {**MODEL, "config.json": json.dumps(CONFIG | {"num_hidden_layers": 2}).encode()}
BENCHMARKS: dict[str, Any] = {"benchmarks": [{"name": "mmlu"}]}
KINDS: dict[str, dict[str, Any]] = {"EvalJob": BENCHMARKS, "InferenceService": {}, "FineTuneJob": {}}


@pytest.fixture
def fetcher(tmp_path: Path) -> Fetcher:
    return Fetcher(Store(uri=f"file://{tmp_path}/store"), tmp_path)


def spec(fetcher: Fetcher, kind: str, model: Any, **more: Any) -> RunSpec:
    if kind == "FineTuneJob":
        return fetcher.job(model, fetcher.put("data", {"a.jsonl": ROWS}), **more)
    return fetcher.spec(kind, model, KINDS[kind] | more)


def fault(fetcher: Fetcher, asked: RunSpec) -> RunFailure:
    with pytest.raises(RunFailure) as failure:
        fetcher.fetch(asked)
    assert failure.value.failure is FailureClass.BAD_MODEL
    return failure.value


@pytest.mark.parametrize("kind", KINDS)
def test_random_weights_are_neither_tuned_nor_scored_nor_served(fetcher: Fetcher, kind: str) -> None:
    found = fault(fetcher, spec(fetcher, kind, fetcher.put("base", DEEPER)))
    assert "the files lack model.layers.1." in found.message


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantized_model_is_refused_before_its_weights_are_downloaded(fetcher: Fetcher, kind: str) -> None:
    found = fault(fetcher, spec(fetcher, kind, fetcher.put("base", QUANTIZED)))
    assert "the model is quantized (awq)" in found.message
    assert not (fetcher.folder / "pod-1/model").exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_a_model_that_writes_no_text_is_refused_before_its_weights_are_downloaded(
    fetcher: Fetcher, kind: str, engine: str
) -> None:
    config = json.dumps(CONFIG | {"architectures": ["LlamaForSequenceClassification"]}).encode()
    options = {} if kind == "FineTuneJob" else {"engine": engine}
    found = fault(fetcher, spec(fetcher, kind, fetcher.put("base", {**MODEL, "config.json": config}), **options))
    assert "the model is a LlamaForSequenceClassification, which writes no text" in found.message
    assert not (fetcher.folder / "pod-1/model").exists()


def test_a_quantized_base_is_refused_before_a_device_is_requested(fetcher: Fetcher) -> None:
    with pytest.raises(RunFailure, match="quantized"):
        fetcher.prepare(spec(fetcher, "FineTuneJob", fetcher.put("base", QUANTIZED)))


def test_a_device_engine_is_left_to_load_a_quantized_model(fetcher: Fetcher) -> None:
    asked = spec(fetcher, "InferenceService", fetcher.put("base", QUANTIZED), engine="vllm")
    assert fetcher.fetch(asked)[0].outcome == "Succeeded"


def test_a_model_is_checked_once_for_all_resources(fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fetcher.put("base", MODEL)
    fetcher.fetch(spec(fetcher, "FineTuneJob", model))
    monkeypatch.setattr("tunesmith_runtime.fetch.checks.check_model", lambda *args: pytest.fail("checked again"))
    fetcher.fetch(spec(fetcher, "InferenceService", model))


def test_a_model_that_changed_is_checked_again(fetcher: Fetcher) -> None:
    model = fetcher.put("base", MODEL)
    fetcher.fetch(spec(fetcher, "InferenceService", model))
    fetcher.put("base", DEEPER)
    fault(fetcher, spec(fetcher, "InferenceService", model))


def test_a_model_that_another_engine_loads_is_still_checked_for_transformers(fetcher: Fetcher) -> None:
    unknown = {**MODEL, "config.json": json.dumps(CONFIG | {"model_type": "no-such"}).encode()}
    model = fetcher.put("base", unknown)
    fetcher.fetch(spec(fetcher, "InferenceService", model, engine="vllm"))
    assert "no-such" in fault(fetcher, spec(fetcher, "FineTuneJob", model)).message


def _adapter(**changes: Any) -> dict[str, bytes]:
    return {**ADAPTER, "adapter_config.json": json.dumps(ADAPTER_CONFIG | changes).encode()}


@pytest.mark.parametrize(
    ("adapter", "sentence"),
    [
        (_adapter(r=4), "size mismatch"),
        (_adapter(target_modules=["v_proj"]), "its files lack"),
        (_adapter(target_modules=["q_proj", "v_proj"]), "v_proj.lora_A"),
        (_adapter(target_modules=["no_such"]), "no_such"),
        (_adapter(modules_to_save=["lm_head"]), "lm_head"),
        ({**ADAPTER, "adapter_model.safetensors": MODEL["model.safetensors"]}, "its files lack"),
        ({**ADAPTER, "adapter_model.safetensors": b"<html>"}, "an HTML page"),
        ({**ADAPTER, "adapter_config.json": b"{"}, "adapter_config.json: not JSON"),
        (_adapter(lora_alpha="much"), "does not fit its base"),
    ],
)
def test_an_adapter_that_does_not_fit_its_base_is_refused(
    fetcher: Fetcher, adapter: dict[str, bytes], sentence: str
) -> None:
    base = fetcher.put("base", MODEL)
    named = [{"name": "fr", "model": {"uri": fetcher.put("adapter", adapter), "base": {"uri": base}}}]
    found = fault(fetcher, fetcher.spec("InferenceService", base, {}, adapters=named))
    assert sentence in found.message


def test_an_adapter_of_another_base_is_refused_in_an_evaluation(fetcher: Fetcher) -> None:
    adapter = fetcher.put("adapter", _adapter(r=4))
    resolved = {"uri": adapter, "base": {"uri": fetcher.put("base", MODEL)}}
    assert "adapter demo" in fault(fetcher, fetcher.spec("EvalJob", resolved, BENCHMARKS)).message


PARTS: dict[str, dict[str, Any]] = {
    "lm_head": {"modules_to_save": ["lm_head"]},
    "embeddings of tokens": {"trainable_token_indices": [1]},
}
"""What was trained beside the layers of an adapter, by PEFT's configuration."""


def refusal(fetcher: Fetcher, asked: RunSpec, verb: str = "fetch") -> RunFailure:
    with pytest.raises(RunFailure) as failure:
        getattr(fetcher, verb)(asked)
    assert failure.value.failure is FailureClass.BAD_SPEC
    return failure.value


@pytest.mark.parametrize("base", [MODEL, QUANTIZED], ids=["whole", "quantized"])
@pytest.mark.parametrize("engine", ["lmdeploy", "vllm", "sglang"])
@pytest.mark.parametrize("part", PARTS)
def test_an_engine_that_does_not_serve_parts_of_the_base_is_refused(
    fetcher: Fetcher, part: str, engine: str, base: dict[str, bytes]
) -> None:
    uri = fetcher.put("base", base)
    named = [{"name": "fr", "model": {"uri": fetcher.put("adapter", _adapter(**PARTS[part])), "base": {"uri": uri}}}]
    found = refusal(fetcher, fetcher.spec("InferenceService", uri, {"engine": engine}, adapters=named))
    assert f"adapter fr was trained with {part} beside its layers, which the engine {engine} does not" in found.message
    assert "set spec.engine: transformers" in (found.hint or "")


@pytest.mark.parametrize("verb", ["prepare", "fetch"])
@pytest.mark.parametrize("changes", [PARTS["lm_head"], {"use_dora": True}], ids=["parts", "dora"])
def test_an_evaluation_of_an_adapter_that_its_engine_does_not_serve_is_refused_before_it_has_a_device(
    fetcher: Fetcher, changes: dict[str, Any], verb: str
) -> None:
    resolved = {"uri": fetcher.put("adapter", _adapter(**changes)), "base": {"uri": fetcher.put("base", MODEL)}}
    asked = fetcher.spec("EvalJob", resolved, {**BENCHMARKS, "engine": "vllm"})
    assert "adapter demo " in refusal(fetcher, asked, verb).message


def test_parts_of_the_base_are_not_served_beside_other_adapters(fetcher: Fetcher) -> None:
    base = fetcher.put("base", MODEL)
    files = {"plain": ADAPTER, "head": _adapter(modules_to_save=["lm_head"])}
    named = [
        {"name": name, "model": {"uri": fetcher.put(name, each), "base": {"uri": base}}} for name, each in files.items()
    ]
    found = refusal(fetcher, fetcher.spec("InferenceService", base, {}, adapters=named))
    assert "adapter head was trained with lm_head beside its layers" in found.message
    assert "only without other adapters" in found.message
