"""LoftQ (Li et al., 2023, https://arxiv.org/abs/2310.08659) in one step: an adapter of a quantized base begins with the
best approximation of the quantization error at its rank, so that base and adapter are nearer to the base in full
precision than the quantized base alone.

The quantization itself does not change: the published adapter, from which the start is subtracted, fits the base in
full precision.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.modelcheck.adapters import PREFIX
from tunesmith_runtime.train.tuners.base_weight import base_weight

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor


def begin_with_error(model: PeftModel, folder: Path) -> None:
    """Give the new adapter of a quantized `model` the principal part of each layer's error.

    `folder` has the files of the model. Raises RunFailure (BadSpec) for a layer that is not in the files under its
    name.
    """
    import torch
    from bitsandbytes.nn import Linear4bit, Linear8bitLt
    from peft.tuners.lora import LoraLayer

    stored = StoredWeights(folder)
    for name, layer in model.named_modules():
        base: Any = layer.get_base_layer() if isinstance(layer, LoraLayer) else None
        if not isinstance(base, (Linear4bit, Linear8bitLt)):
            continue
        with torch.no_grad():
            rounded = base_weight(base).float()
            error = stored.of(name.removeprefix(PREFIX)).to(rounded) - rounded
            set_update(layer, error)


def set_update(layer: Any, wanted: Tensor) -> None:
    """Give the adapter of a layer the update of its rank that is nearest to `wanted` (outputs, inputs) (Eckart and Young, 1936)."""
    import torch

    (name,) = layer.active_adapters
    rank = layer.r[name]
    left, values, right = torch.linalg.svd(wanted, full_matrices=False)
    root = values[:rank].sqrt()
    layer.lora_A[name].weight.copy_(root[:, None] * right[:rank])
    layer.lora_B[name].weight.copy_(left[:, :rank] * root / layer.scaling[name])


class StoredWeights:
    """The weights of linear layers in the files of a model."""

    def __init__(self, folder: Path) -> None:
        from safetensors import safe_open

        self._files = [safe_open(path, "pt") for path in sorted(folder.glob("*.safetensors"))]
        self._file_of = {name: file for file in self._files for name in file.keys()}  # noqa: SIM118  # not a mapping

    def of(self, module: str) -> Tensor:
        """Return the weight (outputs, inputs) of a module. The files of the model may omit the first part of names.

        Raises RunFailure (BadSpec).
        """
        names = (f"{module}.weight", f"{module.partition('.')[2]}.weight")
        name = next((each for each in names if each in self._file_of), None)
        if name is None:
            raise RunFailure(
                FailureClass.BAD_SPEC,
                f"lora.init loftq compares the quantized {module} with its weight, and the files of the model have none of that name",
                "remove spec.lora.init",
            )
        weight: Tensor = self._file_of[name].get_tensor(name)
        return weight
