"""Terms of the losses of methods that learn from rewarded completions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tunesmith_api.methods import Clip


@dataclass(frozen=True)
class Sampled:
    """Log-probabilities of a micro batch of completions; each tensor is (rows, tokens)."""

    log_probs: Tensor
    is_token: Tensor
    """Whether the loss counts the token. It does not count prompts, padding, and completions that are left out."""
    advantages: Tensor
    """(rows,)"""
    old: Tensor | None = None
    """Log-probabilities when the completions were sampled; None where the weights have not changed since."""
    reference: Tensor | None = None
    """Log-probabilities by the reference model, for a loss with a KL term."""

    @property
    def log_ratios(self) -> Tensor:
        """Logarithm of the ratio of each token's probability now to its probability when it was sampled."""
        old = self.log_probs.detach() if self.old is None else self.old
        return (self.log_probs - old) * self.is_token

    @property
    def lengths(self) -> Tensor:
        """Tokens of each completion, (rows,); 1 for one without tokens."""
        return self.is_token.sum(dim=1).clamp(min=1)


def surrogate(log_ratios: Tensor, sampled: Sampled, clip: Clip | None) -> Tensor:
    """Return the loss of ratios, of the same shape (rows, tokens or 1), clipped where the completions are older than the weights
    (Schulman et al., 2017, https://arxiv.org/abs/1707.06347)."""
    ratios, advantages = log_ratios.exp(), sampled.advantages[:, None]
    if sampled.old is None:
        return -advantages * ratios
    return -torch.min(advantages * ratios, advantages * ratios.clamp(*bounds(clip)))


def clipped_share(log_ratios: Tensor, sampled: Sampled, clip: Clip | None) -> Tensor:
    """Return the share of the tokens of each completion whose ratio is clipped, (rows,)."""
    ratios, advantages = log_ratios.detach().exp(), sampled.advantages[:, None]
    low, high = bounds(clip)
    is_clipped = ((ratios < low) & (advantages < 0)) | ((ratios > high) & (advantages > 0))
    return (is_clipped & sampled.is_token).sum(dim=1) / sampled.lengths


def bounds(clip: Clip | None) -> tuple[float, float]:
    """Return the bounds of a ratio."""
    clip = clip or Clip()
    return 1 - clip.low, 1 + clip.high


def divergence(log_probs: Tensor, reference: Tensor) -> Tensor:
    """Return the estimate of the KL divergence at each token: exp(d) - d - 1 with d = reference - log_probs
    (Schulman, 2020, http://joschu.net/blog/kl-approx.html), never negative."""
    delta = reference - log_probs
    return delta.exp() - delta - 1
