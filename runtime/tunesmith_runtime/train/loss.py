"""The loss where a label is, and no logits elsewhere.

With a vocabulary of 49k and answers of a few tokens, the output head over every position costs more than the layers of a
small model. TRL skips unlabelled positions with its Triton kernels only, so on other devices this does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tunesmith_runtime.data.examples import IGNORED

LOGITS_BYTES = 1 << 30
"""Logits above this size are left to TRL, which never holds them all at once."""


@contextmanager
def only_where(head: nn.Module, wanted: Tensor) -> Iterator[None]:
    """Within, `head` is given only the hidden states of positions where `wanted` (batch, length - 1) is true.

    The last position predicts nothing, so it is left out. Logits then have the shape (count, vocabulary), and what the
    model does to its logits (scaling, soft capping) stays the model's own.
    """
    hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][:, :-1][wanted],))
    try:
        yield
    finally:
        hook.remove()


def fits(labels: Tensor, vocabulary: int) -> bool:
    """Whether the logits of the labelled positions, as float32, are small enough to be held at once."""
    return int((labels[:, 1:] != IGNORED).sum()) * vocabulary * 4 <= LOGITS_BYTES


def answer_loss(
    model: nn.Module, head: nn.Module, inputs: Mapping[str, Tensor], tokens: Tensor | int | None = None
) -> Tensor:
    """Mean cross entropy of the labelled tokens; the sum over `tokens` where a batch is accumulated from several.

    `inputs`: input_ids, attention_mask and labels, all (batch, length); labels are not shifted.
    """
    targets = inputs["labels"][:, 1:]
    wanted = targets != IGNORED
    with only_where(head, wanted):
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False).logits
    total = cross_entropy(logits.float(), targets[wanted], reduction="sum")
    return total / torch.as_tensor(wanted.sum() if tokens is None else tokens).clamp(min=1)
