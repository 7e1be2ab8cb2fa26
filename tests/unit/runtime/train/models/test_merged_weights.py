"""The weights that vLLM samples with: those of the base with LoRA merged into a copy, by the names of the base's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tunesmith_runtime.train.models.merged_weights import merged_weights


def adapted(model: Path, dtype: torch.dtype = torch.float32, **settings: Any) -> Any:
    """The model with a LoRA adapter whose weights matter."""
    base = AutoModelForCausalLM.from_pretrained(model, dtype=dtype)
    found = get_peft_model(base, LoraConfig(**{"r": 4, "target_modules": "all-linear", **settings}))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for weight in found.parameters():
            if weight.requires_grad:
                torch.nn.init.normal_(weight, std=0.1)
    return found


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True, "lora_alpha": 3}], ids=["plain", "rslora"])
def test_they_are_those_of_a_merged_model(settings: dict[str, Any], tiny: Path) -> None:
    found = dict(merged_weights(adapted(tiny, **settings)))
    expected = dict(adapted(tiny, **settings).merge_and_unload().named_parameters())
    assert found.keys() == expected.keys()
    for name, weight in found.items():
        assert torch.allclose(weight, expected[name], atol=1e-6), name


def test_their_names_are_those_of_the_files(tiny: Path) -> None:
    assert dict(merged_weights(adapted(tiny))).keys() == load_file(tiny / "model.safetensors").keys()


def test_the_model_stays_as_it_is_to_the_bit(tiny: Path) -> None:
    model = adapted(tiny, torch.bfloat16)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    merged = dict(merged_weights(model))
    assert all(weight.dtype is torch.bfloat16 for weight in merged.values())
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_a_model_without_an_adapter_has_its_own_weights(tiny: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny)
    found = dict(merged_weights(model))
    assert found.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(weight, found[name]) for name, weight in model.named_parameters())
