"""Reward of brevity (soft overlong punishment of DAPO, Yu et al., 2025, https://arxiv.org/abs/2503.14476): 0 up to freeTokens, then
falling to -1 at the longest completion."""

from __future__ import annotations

from tunesmith_api.rewards import Reward, RewardType
from tunesmith_runtime.train.rewards.base import Completion, Scorer, each


def score(completion: Completion, reward: Reward) -> float:
    """Return 0 to -1."""
    free = reward.free_tokens or 0
    over = completion.tokens - free
    return -min(1.0, over / max(1, completion.most_tokens - free)) if over > 0 else 0.0


LENGTH = Scorer(RewardType.LENGTH, each(score))
