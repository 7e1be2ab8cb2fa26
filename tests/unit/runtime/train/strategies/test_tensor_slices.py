"""Slices of layers: the models that have a plan for them, and the linear layers of one process alone."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure

SIZES: dict[str, Any] = {
    "vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip


def model_of(kind: str, **sizes: Any) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SIZES, **sizes}))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral", "gemma3_text", "starcoder2"])
def test_families_with_a_plan_are_divided(kind: str) -> None:
    from tunesmith_runtime.train.strategies.tensor_slices import check_plan, planned

    model = model_of(kind, **({"head_dim": 4} if kind == "gemma3_text" else {}))
    check_plan(model, 2)
    linears = {
        name.rsplit(".", 1)[-1] for name, module in model.model.layers.named_modules() if hasattr(module, "in_features")
    }
    assert sum(style != "replicated_with_grad_allreduce" for _, style in planned(model)) == len(linears)


@pytest.mark.parametrize(
    ("kind", "sizes", "devices", "why"),
    [
        (
            "gpt2",
            {"n_embd": 16, "n_head": 2, "n_layer": 1},
            2,
            "no plan by which the layers of GPT2LMHeadModel are divided",
        ),
        ("llama", {}, 4, "num_key_value_heads of the model is 2, which 4 devices do not divide"),
        ("llama", {"intermediate_size": 33}, 2, "intermediate_size of the model is 33"),
        ("mixtral", {"num_local_experts": 2}, 2, "layers of MixtralForCausalLM are divided as "),
        ("phi3", {"pad_token_id": 0}, 2, "no plan by which the layers of Phi3ForCausalLM"),
    ],
)
def test_other_models_are_refused(kind: str, sizes: dict[str, Any], devices: int, why: str) -> None:
    from tunesmith_runtime.train.strategies.tensor_slices import check_plan

    with pytest.raises(RunFailure, match=f"parallelism.tensorParallel: .*{why}") as refused:
        check_plan(model_of(kind, **sizes), devices)
    assert refused.value.failure is FailureClass.BAD_SPEC
