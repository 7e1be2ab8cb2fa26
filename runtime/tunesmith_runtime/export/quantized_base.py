"""Compares a merged model with the model that was trained, whose base was quantized: the merge goes into the base in full precision."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.modelcheck.loading import with_adapter
from tunesmith_runtime.train.models.files import load_model
from tunesmith_runtime.train.models.logits import Batch, logits

log = logging.getLogger(__name__)

QUANTIZATION_ERRORS = 2
"""Distance of the merged model from the trained one that quantization explains, in distances of the quantized base from the base."""


@dataclass(frozen=True)
class Trained:
    """Logits (tokens, vocabulary) of each prompt, by the quantized base with its adapter and without it."""

    adapted: list[Tensor]
    base: list[Tensor]


def trained_logits(
    base: Path,
    adapter: Path,
    batches: Sequence[Batch],
    options: Mapping[str, Any],
    trust_remote_code: bool,
    check: Callable[[Any], None],
) -> Trained:
    """Return the logits of the model as it was trained, which passes `check`: `options` quantize the base."""
    model = with_adapter(load_model(base, trust_remote_code, **options), "default", adapter)
    check(model)
    adapted = logits(model, batches)
    with model.disable_adapter():
        return Trained(adapted, logits(model, batches))


def check_distance(trained: Trained, base: list[Tensor], merged: list[Tensor]) -> None:
    """Compare the merged model and the trained one by the root mean square of the differences of their logits.

    They differ by the quantization of the base, and by no more than that: the merged model must be nearer to the trained one
    than the base is, or as near as quantization explains. Raises RunFailure (MergeMismatch).
    """
    remaining, learned, error = (
        distance(trained.adapted, merged),
        distance(trained.adapted, base),
        distance(trained.base, base),
    )
    log.info(
        "merged model: logits differ from those of the quantized base with its adapter by %.2e, those of the base by %.2e; the quantization of the base changes them by %.2e (root mean squares)",
        remaining,
        learned,
        error,
    )
    if not remaining <= max(learned, QUANTIZATION_ERRORS * error):
        raise RunFailure(
            FailureClass.MERGE_MISMATCH,
            f"the logits of the merged model differ by {remaining:.1e} from those of the quantized base and its adapter: by more than those of the untrained base ({learned:.1e}), and by more than the quantization explains ({QUANTIZATION_ERRORS} x {error:.1e})",
        )


def distance(expected: list[Tensor], actual: list[Tensor]) -> float:
    """Return the root mean square of the differences of all logits."""
    return float(torch.cat([(a - b).flatten() for a, b in zip(expected, actual, strict=True)]).square().mean().sqrt())
