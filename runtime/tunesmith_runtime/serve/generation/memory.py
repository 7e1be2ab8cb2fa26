"""How many tokens fit into the memory that the weights leave free."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tunesmith_runtime.serve.generation.batch import MERGEABLE_LAYERS

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""The memory limit of the container, or `max` (cgroup v2)."""


def capacity(model: Any) -> int | None:
    """Return how many tokens' keys and values fit into the device's memory beside the weights; None if that is unknown.

    This is an upper bound: a longer request can never be answered, however idle the server is.
    """
    memory, per_token = _memory(model.device), _bytes_per_token(model)
    if memory is None or per_token is None:
        return None
    weights = sum(parameter.nbytes for parameter in model.parameters())
    return max(memory - weights, 0) // per_token


def _memory(device: torch.device) -> int | None:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type != "cpu" or not CGROUP_LIMIT.is_file():
        return None
    limit = CGROUP_LIMIT.read_text().strip()
    return int(limit) if limit.isdecimal() else None


def _bytes_per_token(model: Any) -> int | None:
    """Return the bytes of a token's keys and values; None if the layers differ in a way that config.json does not describe."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or getattr(config, "num_attention_heads", None)
    size = getattr(config, "head_dim", None)
    if not isinstance(heads, int) or not isinstance(size, int) or getattr(config, "kv_lora_rank", None):
        return None
    layers = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    return 2 * sum(layer in MERGEABLE_LAYERS for layer in layers) * heads * size * model.dtype.itemsize or None
