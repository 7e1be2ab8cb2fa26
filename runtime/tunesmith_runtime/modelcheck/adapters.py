"""Adapters that can't be used beside other adapters on one base: other methods, and those that change the base itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.modelcheck.files import read_header, read_json

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BASE_CHANGING = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Beginnings of PEFT's `init_lora_weights` that subtract the fresh adapter from the base's weights."""
OWN = ("lora_", "trainable_tokens_")
"""Parts of tensor names that belong to LoRA."""
PREFIX, WRAPPED = "base_model.model.", "base_layer."
"""What PEFT puts before the name of a base's weight, and into it where the layer is adapted."""


def check_kind(name: str, folder: Path) -> None:
    """Refuse adapters that are no plain LoRA. Raises RunFailure (BadSpec, ModelNotFound, BadModel)."""
    if not (folder / ADAPTER_CONFIG).is_file():
        raise RunFailure(FailureClass.MODEL_NOT_FOUND, f"adapter {name}: {folder} has no {ADAPTER_CONFIG}")
    if kind := _kind(read_json(f"adapter {name}", folder / ADAPTER_CONFIG)):
        raise RunFailure(
            FailureClass.BAD_SPEC,
            f"adapter {name} is {kind}: only plain LoRA adapters are served beside a base model",
            "merge the adapter (export.merge: true) and serve the merged model",
        )


def _kind(config: Mapping[str, Any]) -> str | None:
    """The method of an adapter that is no plain LoRA; None for one that is."""
    method, start = config.get("peft_type"), config.get("init_lora_weights")
    if method != "LORA":
        return str(method)
    if config.get("use_dora"):
        return "DoRA"
    if config.get("alora_invocation_tokens"):
        return "an activated LoRA"
    changes = isinstance(start, str) and start.lower().startswith(BASE_CHANGING)
    return f"a LoRA that changes the base (init_lora_weights: {start})" if changes else None


def base_weights(name: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Tensors of an adapter's file that are weights of the base itself: name in the file, name in the base.

    PEFT loads them over the base's own, for every adapter and for the base alone.
    """
    saved = read_json(f"adapter {name}", folder / ADAPTER_CONFIG).get("modules_to_save") or []
    path = folder / ADAPTER_WEIGHTS
    for tensor in read_header(f"adapter {name}", path) if path.is_file() else ():
        inner = tensor.removeprefix(PREFIX)
        if not any(own in inner for own in OWN) and not any(f".{module}." in f".{inner}" for module in saved):
            yield tensor, inner.replace(WRAPPED, "")
