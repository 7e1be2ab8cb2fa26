"""The description of a tuner."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.status import ArtifactType
from tunesmith_api.tuners import Tuner as TunerName

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, TrainerCallback


@dataclass(frozen=True)
class Tuner:
    """A choice of trained weights. Importing a tuner imports neither torch nor peft; calling its functions does."""

    name: TunerName
    artifact: ArtifactType
    """Type of the published artifact."""
    load_options: Callable[[FineTuneJobSpec, torch.dtype, str], Mapping[str, Any]]
    """Return options of `from_pretrained` for the base, by the number format that the device computes in and torch's name of
    the device."""
    check: Callable[[PreTrainedModel, FineTuneJobSpec, Sequence[int]], None]
    """Refuse a job that does not fit the model, which may have no weights, and which may be changed; with the ids of the
    tokens that it names. Raises RunFailure (BadSpec)."""
    apply: Callable[[PreTrainedModel, FineTuneJobSpec, Path | None, Sequence[int]], Any]
    """Return the model to train, with a new adapter or the adapter in a folder. Torch's seed decides the values of a
    new adapter. Raises RunFailure (BadSpec, BadModel)."""
    record_weights: Callable[[Any, torch.dtype], Callable[[], bool]]
    """Record the weights before the first step. The returned function tests whether they have changed since then, as
    stored in the given number format."""
    check_steps: Callable[[FineTuneJobSpec, int], None] = lambda job, steps: None
    """Refuse a job that does not fit the number of its steps. Raises RunFailure (BadSpec)."""
    callbacks: Callable[[Any, FineTuneJobSpec, int, Path | None], Sequence[TrainerCallback]] = lambda *_: ()
    """Return further callbacks of a training, by the number of its steps and the checkpoint from which it resumes."""
    initialize_from_rows: Callable[[Any, FineTuneJobSpec, Iterable[Sequence[int]]], None] = lambda *_: None
    """Give the new adapter of a model, which is on its device, the values that follow from the tokens of the first rows of the data.
    Raises RunFailure (BadSpec)."""
    record_start: Callable[[Any, FineTuneJobSpec], Callable[[Path], None]] = lambda *_: lambda _: None
    """Record the model before its first step. The returned function changes the trained weights in a folder so that
    they fit the original base."""
    rate_factor: Callable[[FineTuneJobSpec], Callable[[str], float] | None] = lambda _: None
    """Return the factor of the learning rate by the name of a weight; None if all have the same."""
    quantizes_base: bool = False
    """Whether the base is quantized while it is loaded. The adapter is merged into the base as it was before."""
    needs: frozenset[str] = frozenset()
    """Optional packages that it imports; all others stay hidden (`train.imports`)."""
