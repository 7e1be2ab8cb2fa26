"""The description of a tuner."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.status import ArtifactType
from tunesmith_api.training import Tuner as TunerName

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, TrainerCallback


@dataclass(frozen=True)
class Tuner:
    """Which weights of a model are trained. Importing a tuner imports neither torch nor peft; calling its functions does."""

    name: TunerName
    artifact: ArtifactType
    """What a run publishes."""
    load_options: Callable[[FineTuneJobSpec, torch.dtype, str], Mapping[str, Any]]
    """Return options of `from_pretrained` for the base, by the number format that the device computes in and torch's name of
    the device."""
    check: Callable[[PreTrainedModel, FineTuneJobSpec], None]
    """Refuse a job that does not fit the model, which may have no weights, and which may be changed.
    Raises RunFailure (BadSpec)."""
    apply: Callable[[PreTrainedModel, FineTuneJobSpec, Path | None], Any]
    """Return the model to train, with a new adapter, whose values follow torch's seed, or the one in a folder.
    Raises RunFailure (BadSpec, BadModel)."""
    record_weights: Callable[[Any, torch.dtype], Callable[[], bool]]
    """Record the weights before the first step. The returned function tests whether they have changed since then, as
    stored in the given number format."""
    check_steps: Callable[[FineTuneJobSpec, int], None] = lambda job, steps: None
    """Refuse a job that does not fit the number of its steps. Raises RunFailure (BadSpec)."""
    callbacks: Callable[[Any, FineTuneJobSpec, int, Path | None], Sequence[TrainerCallback]] = lambda *_: ()
    """Return what else happens in a training of a model: by the number of its steps, and the checkpoint that it resumes from."""
    quantizes_base: bool = False
    """Whether the base is quantized while it is loaded. The adapter is merged into the base as it was before."""
    needs: frozenset[str] = frozenset()
    """Optional packages that it imports; all others stay hidden (`train.imports`)."""
