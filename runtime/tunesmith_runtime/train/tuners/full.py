"""All weights are trained."""

from __future__ import annotations

from transformers import PreTrainedModel

from tunesmith_api.finetunejob import FineTuneJobSpec

ARTIFACT = "model"
LEARNING_RATE = 1e-5
FROZEN_BASE = False
"""The weights are trained, so they stay in float32 whatever the device computes in."""


def apply(model: PreTrainedModel, job: FineTuneJobSpec) -> PreTrainedModel:
    """The model itself."""
    return model
