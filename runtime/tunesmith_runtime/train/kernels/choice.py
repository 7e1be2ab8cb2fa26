"""The fast paths of a run: chosen by its settings and its device, and confirmed by a short comparison on the device."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import torch

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.kernels import FAST_PATHS, Attention, Loss, Step
from tunesmith_api.method_facts import METHOD_FACTS
from tunesmith_api.training import Kernels, Optimizer
from tunesmith_runtime.train.kernels.row_attention import ARGUMENT, NAMES, no_masks, register, row_lengths
from tunesmith_runtime.train.rows.packing import LEAK
from tunesmith_runtime.train.strategies.fsdp import base_of, decoder_layers

log = logging.getLogger(__name__)

PACKED = "attention in sequences of packed rows"
TOLERANCE = {4: 1e-4, 2: 5e-2}
"""Difference of the logits of two kinds of attention, relative to the largest logit, by the bytes of a number."""


@dataclass(frozen=True)
class Choice:
    """The code that computes the parts of a step."""

    attention: Attention
    loss: Loss | None
    """None with a method that has another loss."""
    step: Step | None
    """None with an optimizer that has no fused step."""
    compiled: bool = False

    def to_dict(self) -> dict[str, str]:
        """Return the entry of run.json."""
        parts = {"attention": self.attention, "loss": self.loss, "optimizer": self.step}
        return {**{name: str(part) for name, part in parts.items() if part}, "compile": str(self.compiled).lower()}

    @property
    def load_options(self) -> dict[str, Any]:
        """Options of `from_pretrained`: attention row by row is set later, when the model is on its device."""
        return {"attn_implementation": "eager"} if self.attention is Attention.EAGER else {}


def choose(job: FineTuneJobSpec, is_sharded: bool, bf16: bool) -> Choice:
    """Return the fast paths of a job on its device.

    Attention row by row is for packed sequences in a model that is not divided. It is not for compiled layers, which
    would be compiled again for each set of lengths.
    """
    training = job.training
    is_plain, compiled = training.kernels is Kernels.PLAIN, training.compile and not is_sharded
    paths = {path.part: path.plain if is_plain else path.fast[job.resources.accelerator] for path in FAST_PATHS}
    attention = Attention(paths["attention"])
    if training.packing and not is_sharded and not compiled:
        packed = Attention(paths[PACKED])
        attention = attention if packed is Attention.VARLEN and not bf16 else packed
    return Choice(
        attention=attention,
        loss=Loss(paths["loss of sft and pretrain"]) if METHOD_FACTS[job.method].is_cross_entropy else None,
        step=Step(paths["step of adamw"]) if training.optimizer is Optimizer.ADAMW else None,
        compiled=compiled,
    )


def settle(choice: Choice, model: Any, rows: tuple[list[int], list[int]] | None, device: torch.device) -> Choice:
    """Set the attention of a choice, if the logits of two packed rows equal those of sdpa on this model and device; else keep sdpa.

    `rows`: two rows of a sequence, or None if no two rows share one. `model` may have an adapter, and is on its device.
    """
    if choice.attention not in NAMES:
        return choice
    register()
    base = base_of(model)
    before = base.config._attn_implementation
    reason = (
        "no two rows share a sequence" if rows is None else _difference(choice.attention, model, base, *rows, device)
    )
    if reason is None:
        return choice
    if base.config._attn_implementation != before:
        base.set_attn_implementation(before)
    log.info("attention: sdpa instead of %s, as %s", choice.attention, reason)
    return replace(choice, attention=Attention.SDPA)


def _difference(
    attention: Attention, model: Any, base: Any, before: list[int], row: list[int], device: torch.device
) -> str | None:
    """Set `attention`, and return how it differs from sdpa; None if it does not."""
    restarting = [*range(len(before)), *range(len(row))]
    inputs = {
        "input_ids": torch.tensor([[*before, *row]] * 2, device=device),
        "position_ids": torch.tensor([restarting] * 2, device=device),
    }
    mixed = {**inputs, "position_ids": torch.arange(len(restarting), device=device).expand(2, -1)}
    was_training = model.training
    model.eval()
    try:
        expected, influenced = logits_of(model, inputs), logits_of(model, mixed)
        base.set_attn_implementation(NAMES[attention])
        with no_masks():
            found = logits_of(model, {**inputs, ARGUMENT: row_lengths(inputs["position_ids"])})
    except Exception as error:  # noqa: BLE001  # kernels and models that do not take the argument raise errors of any type
        return f"it cannot be computed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else '-'}"
    finally:
        model.train(was_training)
    difference, limit = (found - expected).abs(), LEAK * float((influenced - expected).abs().mean())
    if not limit:
        return "the model takes no position ids"
    largest = float(difference.max() / expected.abs().max())
    if largest <= TOLERANCE[base.dtype.itemsize] and float(difference.mean()) <= limit:
        return None
    return f"its logits differ from those of sdpa by {largest:.1g} of the largest logit"


@torch.no_grad()
def logits_of(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """Return the logits of a batch, in float32."""
    logits: torch.Tensor = model(**inputs, use_cache=False).logits
    return logits.float()


def compile_layers(model: Any) -> None:
    """Compile each decoder layer, for batches of all lengths. Layers of one kind share their compiled code."""
    for layer in decoder_layers(base_of(model)):
        layer.compile(dynamic=True)
