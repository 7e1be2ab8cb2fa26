"""Adapters on a base: each is loaded completely, and none changes the base or another adapter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.unit.runtime.modelcheck.families import copy, edit_json, logits, make
from tunesmith_api.failures import FailureClass
from tunesmith_api.inferenceservice import Engine
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.modelcheck import check_fit
from tunesmith_runtime.modelcheck.adapters import adapter_config, check_kind
from tunesmith_runtime.serve.generation.model import LoadedModel, load

TOKENS = torch.arange(3, 35).unsqueeze(0)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model."""
    return make("llama", tmp_path_factory.mktemp("base") / "good")


def adapter(base: Path, folder: Path, save_embeddings: bool = False, **settings: Any) -> Path:
    """A LoRA adapter as PEFT stores it, with weights that matter."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    options = {"r": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM", **settings}
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**options))
    for weight in model.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(folder, save_embedding_layers=save_embeddings)
    return folder


@torch.no_grad()
def of_base(loaded: LoadedModel) -> Tensor:
    """Logits of the base beneath the adapters."""
    model: Any = loaded.forward._model
    with model.disable_adapter():
        return model(input_ids=TOKENS).logits  # type: ignore[no-any-return]


def refusal(folder: Path, base: Path, step: Callable[[Path, Path], Any]) -> RunFailure:
    with pytest.raises(RunFailure) as failure:
        step(folder, base)
    return failure.value


def serve(folder: Path, base: Path) -> LoadedModel:
    """Load the adapter beside its base."""
    return load(base, {"fr": folder}, None, False)


def fit(folder: Path, base: Path) -> bool:
    """Check the adapter as fetch does."""
    check_kind("fr", adapter_config("fr", folder), Engine.TRANSFORMERS, is_alone=True)
    return check_fit("fr", folder, base)


@pytest.mark.parametrize("name", ["model", "layers", "0", "weight", "mlp"])
def test_an_adapter_may_be_named_like_a_part_of_the_model(base: Path, tmp_path: Path, name: str) -> None:
    folders = {each: adapter(base, tmp_path / f"adapter-{each}") for each in ("fr", name)}
    assert torch.allclose(of_base(load(base, folders, None, False)), logits(base), atol=1e-5)


@pytest.mark.parametrize("weight", ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"])
def test_an_adapter_cannot_replace_weights_of_the_base(base: Path, tmp_path: Path, weight: str) -> None:
    folder = adapter(base, tmp_path / "adapter")
    file = folder / "adapter_model.safetensors"
    shape = {"model.norm.weight": (32,)}.get(weight, (520, 32))
    save_file(load_file(file) | {f"base_model.model.{weight}": torch.ones(shape)}, file)
    failure = refusal(folder, base, serve)
    assert failure.failure is FailureClass.BAD_MODEL
    assert f"holds other values of the base's weight {weight}" in failure.message


@pytest.mark.parametrize(
    "settings",
    [
        {"save_embeddings": True},
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"modules_to_save": ["lm_head"]},
        {"trainable_token_indices": [5, 6]},
        {"rank_pattern": {"k_proj": 4}, "target_modules": ["q_proj", "k_proj"]},
        {"use_rslora": True},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_extra_tensors_of_peft_are_harmless(base: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    folder = adapter(base, tmp_path / "adapter", **settings)
    assert fit(folder, base)
    assert torch.allclose(of_base(serve(folder, base)), logits(base), atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"init_lora_weights": "pissa"}, "init_lora_weights: pissa"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights: pissa_niter_4"),
        ({"init_lora_weights": "olora"}, "init_lora_weights: olora"),
        ({"use_dora": True}, "DoRA"),
        ({"alora_invocation_tokens": [5, 6]}, "an activated LoRA"),
        ({"peft_type": "VERA"}, "VERA"),
    ],
)
@pytest.mark.parametrize("step", [fit, serve])
def test_an_adapter_that_is_not_a_plain_lora_is_refused_with_its_method(
    base: Path, tmp_path: Path, settings: dict[str, Any], kind: str, step: Callable[[Path, Path], Any]
) -> None:
    folder = adapter(base, tmp_path / "adapter")
    edit_json(folder / "adapter_config.json", lambda config: config.update(settings))
    failure = refusal(folder, base, step)
    assert failure.failure is FailureClass.BAD_SPEC
    assert kind in failure.message


def test_an_adapter_of_experts_is_refused_before_a_request_fails(base: Path, tmp_path: Path) -> None:
    """PEFT has no mixed batches for adapted parameters that are not modules."""
    folder = adapter(base, tmp_path / "adapter", target_parameters=["mlp.up_proj.weight"])
    failure = refusal(folder, base, serve)
    assert failure.failure is FailureClass.BAD_SPEC
    assert "weights of experts" in failure.message


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize(
    "settings",
    [
        {"modules_to_save": ["lm_head", "embed_tokens"], "ensure_weight_tying": True},
        {"modules_to_save": ["lm_head"]},
        {"trainable_token_indices": [5, 6]},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_rows_of_an_adapter_with_parts_of_the_base_are_mixed_with_rows_of_the_base(
    family: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    """`qwen3` ties embedding and output head; `llama` does not."""
    base = make(family, tmp_path / "base")
    folder = adapter(base, tmp_path / "adapter", **settings)
    mixed: Any = serve(folder, base).forward._model
    with torch.no_grad():
        own, plain = mixed(input_ids=TOKENS.repeat(2, 1), adapter_names=["fr", "__base__"]).logits
    assert torch.allclose(plain, logits(base)[0], atol=1e-5)
    assert torch.allclose(own, merged_logits(folder, base), atol=1e-4)
    assert not torch.allclose(own, plain, atol=1e-2)


@torch.no_grad()
def merged_logits(folder: Path, base: Path) -> Tensor:
    """Logits of the base with the adapter merged into it."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).merge_and_unload()
    return model.eval()(input_ids=TOKENS).logits[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("step", [fit, serve])
def test_a_norm_that_was_trained_as_a_whole_is_refused_before_a_request_fails(
    base: Path, tmp_path: Path, step: Callable[[Path, Path], Any]
) -> None:
    """PEFT has no mixed batches for them."""
    failure = refusal(adapter(base, tmp_path / "adapter", modules_to_save=["model.norm", "lm_head"]), base, step)
    assert failure.failure is FailureClass.BAD_SPEC
    assert "adapter fr was trained with norm beside its layers" in failure.message


def test_an_adapter_of_integers_is_refused(base: Path, tmp_path: Path) -> None:
    folder = adapter(base, tmp_path / "adapter")
    file = folder / "adapter_model.safetensors"
    save_file({name: tensor.to(torch.int8) for name, tensor in load_file(file).items()}, file)
    assert "no floating point format" in refusal(folder, base, fit).message


def test_an_adapter_config_that_is_not_json_is_named(base: Path, tmp_path: Path) -> None:
    folder = copy(adapter(base, tmp_path / "adapter"), tmp_path / "bad")
    (folder / "adapter_config.json").write_text("{")
    assert "adapter fr/adapter_config.json: not JSON" in refusal(folder, base, fit).message
