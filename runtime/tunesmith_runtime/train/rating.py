"""Rates completions by the rewards of a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tunesmith_api.methods import Reward
from tunesmith_runtime.train.rewards import SCORERS, Completion
from tunesmith_runtime.train.sampling import Sampling


@dataclass(frozen=True)
class Rating:
    """The rewards of completions."""

    total: Tensor
    """Sum of the rewards of each completion, times their weights, (rows,)."""
    is_finished: list[bool]
    """Whether each completion has ended within maxCompletionLength."""
    metrics: Mapping[str, Tensor]
    """What is logged."""


def rate(
    rows: Sequence[Mapping[str, Any]],
    completions: Sequence[list[int]],
    rewards: Sequence[Reward],
    sampling: Sampling,
    tokenizer: Any,
) -> Rating:
    """Rate a completion of each row, whose `columns` the rewards read."""
    is_finished = [bool(tokens) and tokens[-1] in sampling.stop_ids for tokens in completions]
    texts = [
        tokenizer.decode(tokens[:-1] if finished else tokens, skip_special_tokens=True)
        for tokens, finished in zip(completions, is_finished, strict=True)
    ]
    scored = [
        Completion(text, len(tokens), sampling.max_tokens, row["columns"])
        for row, tokens, text in zip(rows, completions, texts, strict=True)
    ]
    values = {
        reward.name: torch.tensor([SCORERS[reward.type].score(each, reward) for each in scored]) for reward in rewards
    }
    total = torch.zeros(len(rows))
    for reward in rewards:
        total += reward.weight * values[reward.name]
    metrics = {
        **{f"rewards/{name}": each for name, each in values.items()},
        "reward": total[~total.isnan()],
        "completions/length": torch.tensor([float(len(tokens)) for tokens in completions]),
        "completions/truncated": torch.tensor([float(not finished) for finished in is_finished]),
    }
    return Rating(total, is_finished, metrics)
