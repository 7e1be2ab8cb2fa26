"""Full tuning: all weights are trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.status import ArtifactType
from tunesmith_api.tuners import Tuner as TunerName
from tunesmith_runtime.train.tuners.base import Tuner

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def load_options(job: FineTuneJobSpec, compute: torch.dtype, device: str) -> Mapping[str, Any]:
    """Return the options for loading trained weights: in float32."""
    import torch

    return {"dtype": torch.float32}


def check(model: PreTrainedModel, job: FineTuneJobSpec, tokens: Sequence[int] = ()) -> None:
    """Refuse parts to freeze that the model does not have."""
    apply(model, job)


def apply(
    model: PreTrainedModel, job: FineTuneJobSpec, initial: Path | None = None, tokens: Sequence[int] = ()
) -> PreTrainedModel:
    """Return the model itself, with the parts frozen that `training.freeze` names. There is no adapter."""
    from tunesmith_runtime.train.tuners.freeze import freeze

    freeze(model, job.training)
    return model


def record_weights(model: PreTrainedModel, dtype: torch.dtype) -> Callable[[], bool]:
    """Record one checksum for each weight, not a copy; the returned function compares them with the present weights.

    An update that `dtype` rounds away does not count as a change, nor does a change of a zero that is negligible beside
    the other weights.
    """
    from tunesmith_runtime.train.models.weight_change import ROUNDING, stored_bits

    floor = ROUNDING * max(float(weight.detach().abs().max()) for weight in model.parameters())
    before = {name: stored_bits(weight, dtype, floor) for name, weight in model.named_parameters()}
    return lambda: any(stored_bits(weight, dtype, floor) != before[name] for name, weight in model.named_parameters())


FULL = Tuner(
    TunerName.FULL,
    artifact=ArtifactType.MODEL,
    load_options=load_options,
    check=check,
    apply=apply,
    record_weights=record_weights,
)
