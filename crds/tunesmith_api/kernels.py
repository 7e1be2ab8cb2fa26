"""Fast paths of a training: what computes attention, the loss and the optimizer's step on each device, and what `kernels: plain`
puts in its place. The reference page and run.json name them alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from tunesmith_api.pods import Accelerator


class Attention(StrEnum):
    """Code that computes attention."""

    EAGER = "eager"
    SDPA = "sdpa"
    ROWS = "rows"
    VARLEN = "varlen"


class Loss(StrEnum):
    """Logits that the loss of sft and pretrain computes."""

    ALL = "all logits"
    LABELLED = "logits of labels"
    CHUNKED = "logits of labels, in chunks"


class Step(StrEnum):
    """Code that computes a step of AdamW."""

    PLAIN = "not fused"
    FUSED = "fused"


@dataclass(frozen=True)
class FastPath:
    """A part of a step: the code that computes it on each device, and the one in its place with `kernels: plain`."""

    part: str
    plain: str
    fast: Mapping[Accelerator, str]


def _everywhere(path: str) -> dict[Accelerator, str]:
    return dict.fromkeys(Accelerator, path)


FAST_PATHS: tuple[FastPath, ...] = (
    FastPath("attention", Attention.EAGER, _everywhere(Attention.SDPA)),
    FastPath(
        "attention in sequences of packed rows",
        Attention.EAGER,
        {
            Accelerator.CPU: Attention.ROWS,
            Accelerator.NVIDIA: Attention.VARLEN,
            Accelerator.AMD: Attention.VARLEN,
            Accelerator.ASCEND: Attention.SDPA,
        },
    ),
    FastPath(
        "loss of sft and pretrain",
        Loss.ALL,
        {
            Accelerator.CPU: Loss.LABELLED,
            Accelerator.NVIDIA: Loss.CHUNKED,
            Accelerator.AMD: Loss.CHUNKED,
            Accelerator.ASCEND: Loss.LABELLED,
        },
    ),
    FastPath("step of adamw", Step.PLAIN, _everywhere(Step.FUSED)),
)
"""The parts of a step that have fast paths."""
