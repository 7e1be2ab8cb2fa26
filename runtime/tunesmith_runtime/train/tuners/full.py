"""All weights are trained."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from tunesmith_api.common import ArtifactType
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_runtime.train.weight_change import ROUNDING, stored_bits

ARTIFACT = ArtifactType.MODEL
FROZEN_BASE = False
"""The weights are trained, so they stay in float32 whatever the device computes in."""


def check(model: PreTrainedModel, job: FineTuneJobSpec) -> None:
    """Any model can be trained as a whole."""


def apply(model: PreTrainedModel, job: FineTuneJobSpec) -> PreTrainedModel:
    """The model itself."""
    return model


def changes(model: PreTrainedModel, dtype: torch.dtype) -> Callable[[], bool]:
    """Record the weights before the first step, and return a function: whether any has changed as it is stored in `dtype`.

    An update that `dtype` rounds away is none, and neither is one of a zero that is lost beside the other weights. One
    checksum for each tensor is kept, not a copy of the weights.
    """
    floor = ROUNDING * max(float(weight.detach().abs().max()) for weight in model.parameters())
    before = {name: stored_bits(weight, dtype, floor) for name, weight in model.named_parameters()}
    return lambda: any(stored_bits(weight, dtype, floor) != before[name] for name, weight in model.named_parameters())
