"""Detects adapters that cannot be served beside a base: methods other than LoRA, and adapters that change the base or parts of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunesmith_api.engines import adapter_refusal
from tunesmith_api.failures import FailureClass
from tunesmith_api.inferenceservice import Engine
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.modelcheck.files import read_header, read_json

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BASE_CHANGING = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Prefixes of PEFT's `init_lora_weights` that subtract the initial adapter from the base's weights."""
OWN = ("lora_", "hada_", "lokr_", "vera_", "oft_", "ia3_", "miss_", "trainable_tokens_")
"""Parts of names of the tensors of adapters, by kind."""
PREFIX, WRAPPED = "base_model.model.", "base_layer."
"""PEFT's prefix of names of the base's weights, and its infix for weights of adapted layers."""


def adapter_config(name: str, folder: Path) -> dict[str, Any]:
    """Return the configuration of the adapter in a folder. Raises RunFailure (ModelNotFound, BadModel)."""
    if not (folder / ADAPTER_CONFIG).is_file():
        raise RunFailure(FailureClass.MODEL_NOT_FOUND, f"adapter {name}: {folder} has no {ADAPTER_CONFIG}")
    return read_json(f"adapter {name}", folder / ADAPTER_CONFIG)


def check_kind(name: str, config: Mapping[str, Any], engine: Engine, is_alone: bool) -> None:
    """Check that an engine serves an adapter beside its base, alone or with other adapters. Raises RunFailure (BadSpec)."""
    if refusal := adapter_refusal(name, _kind(config), trained_parts(config), engine, is_alone):
        raise RunFailure(FailureClass.BAD_SPEC, refusal.message, refusal.hint)


def trained_parts(config: Mapping[str, Any]) -> list[str]:
    """Return what was trained beside the layers of an adapter: modules as a whole, and embeddings of single tokens."""
    modules = dict.fromkeys(str(name).rsplit(".", 1)[-1] for name in config.get("modules_to_save") or ())
    return [*modules, *(["embeddings of tokens"] if config.get("trainable_token_indices") else [])]


def _kind(config: Mapping[str, Any]) -> str | None:
    """Return the method of an adapter; None for a plain LoRA."""
    method = config.get("peft_type")
    if method != "LORA":
        return str(method)
    if config.get("use_dora"):
        return "DoRA"
    if config.get("alora_invocation_tokens"):
        return "an activated LoRA"
    start = changes_base(config)
    return f"a LoRA that changes the base (init_lora_weights: {start})" if start else None


def changes_base(config: Mapping[str, Any]) -> str | None:
    """Return the start of an adapter that is subtracted from the base's weights; None for one that leaves them alone."""
    start = config.get("init_lora_weights")
    return start if isinstance(start, str) and start.lower().startswith(BASE_CHANGING) else None


def base_weights(name: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the base's own weights in an adapter's file: name in the file, name in the base.

    PEFT overwrites the base's weights with them, for all adapters and for the base alone.
    """
    saved = read_json(f"adapter {name}", folder / ADAPTER_CONFIG).get("modules_to_save") or []
    path = folder / ADAPTER_WEIGHTS
    for tensor in read_header(f"adapter {name}", path) if path.is_file() else ():
        inner = tensor.removeprefix(PREFIX)
        if not any(own in inner for own in OWN) and not any(f".{module}." in f".{inner}" for module in saved):
            yield tensor, inner.replace(WRAPPED, "")
