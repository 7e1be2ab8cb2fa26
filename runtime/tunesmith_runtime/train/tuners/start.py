"""Starts of an adapter that have an effect: PiSSA (Meng et al., 2024, https://arxiv.org/abs/2404.02948), OLoRA (Büyükakyüz, 2024,
https://arxiv.org/abs/2406.01775) and LoftQ (`loftq`).

The adapter begins with a part of each weight, which PEFT subtracts from the base, or with a part of the error of its
quantization. The published adapter fits the original base: it has twice the rank, and its update is the difference
between the trained adapter and its start.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.training import ModelPart
from tunesmith_api.tuners import Lora, LoraInit
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.modelcheck.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor, nn

INWARD, OUTWARD = ".lora_A.", ".lora_B."
"""Parts of the names of both matrices of linear layers."""
AS_STORED = (LoraInit.OLORA, LoraInit.LOFTQ)
"""Starts that expect a weight of (outputs, inputs), unlike that of a Conv1D."""


def check_start(model: nn.Module, lora: Lora, merge: bool, frozen: Collection[ModelPart]) -> None:
    """Refuse a start if a layer of `model` has too few dimensions, or another form. Raises RunFailure (BadSpec)."""
    from transformers.pytorch_utils import Conv1D

    from tunesmith_runtime.train.tuners.targets import LINEAR, Layers, targets_of

    if not lora.init.is_computed:
        return
    layers, targets = Layers(model, frozenset(frozen)), targets_of(model, lora, merge, frozen)
    names = layers.names if isinstance(targets, str) else targets
    adapted = {full: module for name in names for full, module in layers.named(name).items()}
    if missing := [name for name in names if not layers.named(name)]:
        raise _refused(f"cannot be computed for {missing[0]}, which is no layer of its own", "remove spec.lora.init")
    sizes: dict[str, int] = {}
    for name, module in adapted.items():
        weight: Any = getattr(module, "weight", None)
        shape = () if weight is None else tuple(weight.shape)
        if len(shape) != 2 or not isinstance(module, LINEAR) or (isinstance(module, Conv1D) and lora.init in AS_STORED):
            raise _refused(f"cannot be computed for {name}, a {type(module).__name__}", "remove spec.lora.init")
        inputs = shape[0] if isinstance(module, Conv1D) else shape[1]
        sizes[name] = inputs if lora.init is LoraInit.EVA else min(shape)
    smallest = min(sizes, key=sizes.__getitem__)
    if lora.rank > sizes[smallest]:
        sentence = f"begins with lora.rank {lora.rank} directions of {smallest}, which has {sizes[smallest]}"
        raise _refused(sentence, f"set spec.lora.rank to at most {sizes[smallest]}, or remove spec.lora.init")


def _refused(sentence: str, hint: str) -> RunFailure:
    return RunFailure(FailureClass.BAD_SPEC, f"lora.init {sentence}", hint)


def record_start(model: PeftModel, job: FineTuneJobSpec) -> Callable[[Path], None]:
    """Return a function that makes a saved adapter fit the base as it was, in full precision."""
    if job.initial_adapter or not (job.lora or Lora()).init.has_effect:
        return lambda folder: None
    from peft import get_peft_model_state_dict

    saved = get_peft_model_state_dict(model, save_embedding_layers=False)
    matrices = {
        name: weight.detach().cpu().clone() for name, weight in saved.items() if INWARD in name or OUTWARD in name
    }
    return partial(subtract, start=matrices)


def subtract(folder: Path, start: Mapping[str, Tensor]) -> None:
    """Subtract `start` from the adapter in `folder`: B A - B0 A0 = [B, -B0] [A; A0]. The scale becomes a part of B."""
    from safetensors.torch import load_file, save_file
    from torch import cat

    path = folder / ADAPTER_CONFIG
    config: dict[str, Any] = json.loads(path.read_text())
    rank = config["r"]
    scale = config["lora_alpha"] / (rank**0.5 if config["use_rslora"] else rank)
    weights = load_file(folder / ADAPTER_WEIGHTS)
    for name, before in start.items():
        after = weights[name]
        weights[name] = cat([after, before]) if INWARD in name else scale * cat([after, -before], dim=1)
    save_file(weights, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    config |= {"r": 2 * rank, "lora_alpha": 2 * rank, "use_rslora": False, "init_lora_weights": True}
    path.write_text(json.dumps(config, indent=2, sort_keys=True))


def as_trained(published: Path, folder: Path) -> Path:
    """Restore the trained adapter from `published`, which `subtract` made of it, and write it to `folder`; return `folder`."""
    from safetensors.torch import load_file, save_file

    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(published, folder)
    path = folder / ADAPTER_CONFIG
    config: dict[str, Any] = json.loads(path.read_text())
    rank = config["r"] // 2
    weights = load_file(published / ADAPTER_WEIGHTS)
    trained = {
        name: weight[:rank] if INWARD in name else weight[:, :rank] if OUTWARD in name else weight
        for name, weight in weights.items()
    }
    contiguous = {name: weight.contiguous() for name, weight in trained.items()}
    save_file(contiguous, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    path.write_text(json.dumps(config | {"r": rank, "lora_alpha": rank}, indent=2, sort_keys=True))
    return folder
