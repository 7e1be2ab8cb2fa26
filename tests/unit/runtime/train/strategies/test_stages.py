"""Stages of a model: together they compute what the whole model does. All of them run in this process, one after another."""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.modelcheck.stages import FAMILIES, check_stages

LAYERS = 3
SIZES: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 4, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 64,
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "gemma2": {"sliding_window": 4},
    "gemma3_text": {"sliding_window": 4},
    "mistral": {"sliding_window": 4},
}
"""Further settings by family. Windows are shorter than the rows, so that layers differ in what they attend to."""
LENGTH = 12


def model_of(kind: str, **settings: Any) -> Any:
    """Return a model with random weights, among them those of norms."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SIZES, **OWN.get(kind, {}), **settings})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    for weight in model.parameters():
        weight.data += 0.1 * torch.randn_like(weight)
    return model


def batch_of() -> dict[str, Any]:
    """Return two rows, the second of which is padded."""
    import torch

    mask = torch.ones(2, LENGTH, dtype=torch.long)
    mask[1, 8:] = 0
    return {"input_ids": torch.arange(2 * LENGTH).reshape(2, LENGTH) + 3, "attention_mask": mask}


def by_stages(model: Any, count: int) -> tuple[Any, dict[str, Any]]:
    """Return the logits of all stages, and the sum of the gradients of each weight by its name."""
    import torch

    from tunesmith_runtime.train.strategies.stages import Stage

    copies = [deepcopy(model) for _ in range(count)]
    stages = [Stage(copy, index, count) for index, copy in enumerate(copies)]
    received: list[Any] = []
    for stage in stages[:-1]:
        stage.received = received[-1] if received else None
        received.append(stage.hidden(batch_of()).detach().requires_grad_())
    stages[-1].received = received[-1]
    logits = copies[-1](**batch_of(), use_cache=False).logits
    loss_of(logits).backward()
    for index in range(count - 2, -1, -1):
        stages[index].received = received[index - 1] if index else None
        stages[index].hidden(batch_of()).backward(received[index].grad)
    gradients: dict[str, Any] = {}
    for copy in copies:
        for name, weight in copy.named_parameters():
            if weight.grad is not None:
                gradients[name] = gradients.get(name, torch.zeros_like(weight)) + weight.grad
    return logits, gradients


def loss_of(logits: Any) -> Any:
    return logits[batch_of()["attention_mask"] == 1].float().pow(2).mean()


@pytest.mark.parametrize("kind", sorted(FAMILIES))
@pytest.mark.parametrize("is_tied", [False, True], ids=["own head", "tied head"])
def test_stages_compute_the_logits_and_gradients_of_the_whole_model(kind: str, is_tied: bool) -> None:
    model = model_of(kind, tie_word_embeddings=is_tied)
    expected = model(**batch_of(), use_cache=False).logits
    logits, gradients = by_stages(model, LAYERS)
    kept = batch_of()["attention_mask"] == 1
    assert float((logits - expected)[kept].abs().max()) < 1e-5
    loss_of(expected).backward()
    named = {name: weight.grad for name, weight in model.named_parameters()}
    assert gradients.keys() == named.keys()
    for name, gradient in named.items():
        assert float((gradients[name] - gradient).abs().max()) < 1e-5, name


@pytest.mark.parametrize("count", [2, 3])
def test_a_stage_has_the_weights_of_its_layers_alone_under_the_names_of_the_whole_model(count: int) -> None:
    from tunesmith_runtime.train.strategies.stages import Stage

    model = model_of("llama", tie_word_embeddings=True)
    sizes = {name: weight.numel() for name, weight in model.named_parameters()}
    kept: dict[str, list[int]] = {name: [] for name in sizes}
    for index in range(count):
        copy = deepcopy(model)
        Stage(copy, index, count)
        for name, weight in copy.named_parameters():
            assert weight.numel() in (0, sizes[name])
            kept[name] += [index] if weight.numel() else []
    assert kept.pop("model.embed_tokens.weight") == [0, count - 1]
    assert all(len(stages) == 1 for stages in kept.values())
    layers = [kept[f"model.layers.{index}.mlp.up_proj.weight"][0] for index in range(LAYERS)]
    assert layers == ([0, 0, 1] if count == 2 else [0, 1, 2])
    assert kept["model.norm.weight"] == [count - 1]


@pytest.mark.parametrize(
    ("kind", "settings", "stages", "why"),
    [
        ("gpt2", {"n_embd": 16, "n_head": 2, "n_layer": 2}, 2, "models of type 'gpt2' are not divided"),
        ("llama", {}, LAYERS + 1, "num_hidden_layers of the model is 3, and each of 4 stages needs a layer"),
        ("mixtral", {"output_router_logits": True}, 2, "the loss of the model has a term of the routers"),
    ],
)
def test_other_models_are_refused(kind: str, settings: dict[str, Any], stages: int, why: str) -> None:
    from tunesmith_runtime.train.strategies.stages import Stage

    with pytest.raises(RunFailure, match=f"parallelism.pipelineParallel: {why}") as refused:
        Stage(model_of(kind, **settings), 0, stages)
    assert refused.value.failure is FailureClass.BAD_SPEC


def test_a_weight_that_belongs_to_no_stage_is_refused() -> None:
    import torch

    from tunesmith_runtime.train.strategies.stages import Stage

    model = model_of("llama")
    model.model.memory = torch.nn.Linear(2, 2)
    with pytest.raises(RunFailure, match=r"the weight model.memory.weight is outside of"):
        Stage(model, 0, 2)


def test_one_device_has_all_layers_of_any_model() -> None:
    check_stages("gpt2", 1, 1)


def test_the_documentation_names_the_families() -> None:
    page = (Path(__file__).parents[5] / "docs" / "training.md").read_text()
    (line,) = re.findall(r"^- Model types: (.*?)\. Others", page, re.MULTILINE | re.DOTALL)
    assert {name.strip("`") for name in re.split(r",\s+", line)} == FAMILIES
