"""The parts of a model in training: how many weights of each learn, at which rate, and that no batch leaves a learned weight out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.training import ModelPart
from tunesmith_runtime.modelcheck.adapters import PREFIX
from tunesmith_runtime.train.arguments import peak_rate
from tunesmith_runtime.train.models.modalities import parts_of
from tunesmith_runtime.train.strategies.fsdp import base_of

Factor = Callable[[str], float]
"""Factor of the learning rate by the name of a weight."""


def part_of_weights(model: Any) -> Callable[[str], ModelPart]:
    """Return the function that gives the part of a weight by its name in `model`, which may have an adapter."""
    parts = parts_of(base_of(model))
    return lambda name: parts.of(name.removeprefix(PREFIX))


def trained_numbers(model: nn.Module) -> dict[str, int]:
    """Return how many numbers of each part are trained."""
    part_of, counts = part_of_weights(model), Counter[str]()
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            counts[part_of(name)] += weight.numel()
    return {str(part): counts[part] for part in ModelPart if counts[part]}


def rate_factor(job: FineTuneJobSpec, model: nn.Module, own: Factor | None) -> Factor | None:
    """Return the factor of a tuner, `own`, times that of training.visionLearningRate; None if all weights have the same rate."""
    rate = job.training.vision_learning_rate
    if rate is None:
        return own
    part_of, factor = part_of_weights(model), rate / peak_rate(job)
    return lambda name: (own(name) if own else 1.0) * (1.0 if part_of(name) is ModelPart.LANGUAGE else factor)


def keep_in_graph(model: Any) -> None:
    """Give each trained weight beside the language model a gradient in every batch: zero where the batch does not use it.

    A batch may have no image, and some layers of a vision tower are never used. Without a gradient of all weights, processes of
    DistributedDataParallel wait for each other forever, and the step of AdamW would depend on how rows are spread over micro batches.
    """
    part_of = part_of_weights(model)
    trained = ((name, weight) for name, weight in model.named_parameters() if weight.requires_grad)
    weights = [weight for name, weight in trained if part_of(name) is not ModelPart.LANGUAGE]
    if weights:
        model.get_input_embeddings().register_forward_hook(lambda *call: _with_all(weights, call[2]))


def _with_all(weights: Sequence[nn.Parameter], embeddings: Tensor) -> Tensor:
    """Return `embeddings` plus zero, a sum of none of the numbers of each weight."""
    if not torch.is_grad_enabled():
        return embeddings
    nothing = torch.stack([weight.flatten()[:0].sum().float() for weight in weights]).sum()
    return embeddings + nothing.to(embeddings.dtype)
