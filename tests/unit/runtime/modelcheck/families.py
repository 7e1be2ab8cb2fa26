"""Tiny models of five architectures, with weights that matter, and ways to damage them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests import tinymodel

SIZES: dict[str, Any] = {"vocab_size": 520, "tie_word_embeddings": True}
DECODER: dict[str, Any] = SIZES | {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen3": DECODER,
    "llama": DECODER | {"tie_word_embeddings": False},
    "gemma2": DECODER | {"query_pre_attn_scalar": 8, "sliding_window": 64},
    "phi3": DECODER | {"tie_word_embeddings": False, "pad_token_id": 0},
    "gpt2": SIZES | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
}
"""model_type -> its sizes."""


def make(family: str, folder: Path) -> Path:
    """A model of a family with the tiny tokenizer and random weights, including those that are initialized to 0 or 1."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = tinymodel.make_tokenizer()
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    config = AutoConfig.for_model(family, **{"pad_token_id": tokenizer.pad_token_id, **ends, **FAMILIES[family]})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, mean=0.2, std=0.3)
    model.save_pretrained(folder, max_shard_size="40KB")
    tokenizer.save_pretrained(folder)
    return folder


def logits(folder: Path) -> Tensor:
    """A model's logits for a fixed prompt."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    with torch.no_grad():
        return model(input_ids=torch.arange(3, 35).unsqueeze(0)).logits


def copy(folder: Path, to: Path) -> Path:
    """The same model elsewhere."""
    return Path(shutil.copytree(folder, to))


def edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a JSON file in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def shard_of(folder: Path, name: str) -> Path:
    """The file that a tensor is in."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    return folder / index["weight_map"][name]


def names(folder: Path) -> list[str]:
    """The tensors of a model."""
    return sorted(json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"])


def edit_tensor(folder: Path, name: str, change: Callable[[Tensor], dict[str, Tensor]]) -> None:
    """Replace a tensor by others in its file, and its entry in the index with theirs."""
    path = shard_of(folder, name)
    tensors = load_file(path)
    made = {each: tensor.contiguous() for each, tensor in change(tensors.pop(name)).items()}
    save_file(tensors | made, path, {"format": "pt"})

    def enter(index: dict[str, Any]) -> None:
        del index["weight_map"][name]
        index["weight_map"] |= dict.fromkeys(made, path.name)

    edit_json(folder / "model.safetensors.index.json", enter)
