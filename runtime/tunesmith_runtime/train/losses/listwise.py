"""The cross entropy of positives against negatives, from which rankings of texts are learned."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus


def listwise_loss(logits: Tensor, is_positive: Tensor, is_negative: Tensor) -> Tensor:
    """Return the loss of each row, (rows,): the mean over its positives of the cross entropy against all its negatives.

    All arguments: (rows, candidates). A row without a negative has a loss of 0.
    """
    lowest = torch.finfo(logits.dtype).min  # finite, as a row without a negative has a loss of 0, not of NaN
    rest = logits.masked_fill(~is_negative, lowest).logsumexp(dim=1, keepdim=True)
    losses = softplus(rest - logits) * is_positive
    return losses.sum(dim=1) / is_positive.sum(dim=1)
