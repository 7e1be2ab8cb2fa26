"""Rates completions by the rewards of a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tunesmith_runtime.data.records import Prompt
from tunesmith_runtime.train.rewards import Completion, Rater
from tunesmith_runtime.train.rollouts.sampler import Sampling


@dataclass(frozen=True)
class Rating:
    """The rewards of completions."""

    total: Tensor
    """Sum of the rewards of each completion, times their weights, (rows,)."""
    is_finished: list[bool]
    """Whether each completion has ended within maxCompletionLength."""
    metrics: Mapping[str, Tensor]
    """Metrics for the log."""


def rate(
    rows: Sequence[Mapping[str, Any]],
    completions: Sequence[list[int]],
    raters: Sequence[Rater],
    sampling: Sampling,
    tokenizer: Any,
) -> Rating:
    """Rate a completion of each row of `Prompts`. Raises RunFailure where a reward cannot be computed."""
    is_finished = [bool(tokens) and tokens[-1] in sampling.stop_ids for tokens in completions]
    texts = [
        tokenizer.decode(tokens[:-1] if finished else tokens, skip_special_tokens=True)
        for tokens, finished in zip(completions, is_finished, strict=True)
    ]
    scored = [
        Completion(
            text, len(tokens), sampling.max_tokens, Prompt(row["prompt"], row["tools"], row["columns"]), finished
        )
        for row, tokens, text, finished in zip(rows, completions, texts, is_finished, strict=True)
    ]
    values = {
        rater.reward.name: torch.tensor(rater.rate(scored) if scored else [], dtype=torch.float32) for rater in raters
    }
    total = torch.zeros(len(rows))
    for rater in raters:
        total += rater.reward.weight * values[rater.reward.name]
    metrics = {
        **{f"rewards/{name}": each for name, each in values.items()},
        "reward": total[~total.isnan()],
        "completions/length": torch.tensor([float(len(tokens)) for tokens in completions]),
        "completions/truncated": torch.tensor([float(not finished) for finished in is_finished]),
    }
    return Rating(total, is_finished, metrics)
