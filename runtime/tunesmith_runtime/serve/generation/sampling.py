"""Sampling: from logits to the next token of a row. The token depends only on the row's logits, settings and seed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

GREEDY_BELOW = 1e-5
"""Lower temperatures count as 0: logits divided by them would overflow a float."""
LOWEST_LOGPROB = -9999.0
"""Log probability of a token with probability 0, as in the OpenAI API: JSON has no infinity."""


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters of the OpenAI API, and `top_k` as in vLLM and SGLang (0: all tokens)."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    logprobs: int | None = None
    """Number of likeliest tokens to report with each token; 0: only the chosen token's probability; None: none."""


@dataclass(frozen=True)
class Choice:
    """A chosen token, with the natural logarithms of the model's probabilities if they were requested."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


def generator_for(sampling: Sampling) -> torch.Generator:
    """Return the random number generator of a row."""
    generator = torch.Generator()
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed % 2**63)
    return generator


def adjusted(logits: torch.Tensor, sampling: Sampling, seen: Counter[int]) -> torch.Tensor:
    """Return logits [vocabulary] with bias, and with penalties for the tokens `seen` in the answer (OpenAI API guide)."""
    if not sampling.logit_bias and not (seen and (sampling.presence_penalty or sampling.frequency_penalty)):
        return logits
    logits = logits.clone()
    if sampling.logit_bias:
        tokens = torch.tensor(list(sampling.logit_bias), device=logits.device)
        logits[tokens] += torch.tensor(list(sampling.logit_bias.values()), dtype=logits.dtype, device=logits.device)
    if seen and (sampling.presence_penalty or sampling.frequency_penalty):
        tokens = torch.tensor(list(seen), device=logits.device)
        counts = torch.tensor(list(seen.values()), dtype=logits.dtype, device=logits.device)
        logits[tokens] -= sampling.presence_penalty + sampling.frequency_penalty * counts
    return logits


def candidates(logits: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the tokens that may be drawn, and their probabilities; the likeliest first if top_k or top_p is set.

    `top_p` keeps the smallest set of likeliest tokens whose probability reaches it (Holtzman et al., 2020). The temperature is
    at least GREEDY_BELOW.
    """
    logits = logits / sampling.temperature
    if not sampling.top_k and sampling.top_p >= 1:
        return torch.arange(len(logits), device=logits.device), torch.softmax(logits, -1)
    kept = min(sampling.top_k or len(logits), len(logits))
    values, tokens = torch.topk(logits, kept)
    probabilities = torch.softmax(values, -1)
    before = probabilities.cumsum(-1) - probabilities
    inside = before < sampling.top_p
    inside[0] = True  # float32 rounds the smallest top_p to 0, which is not above 0
    return tokens[inside], probabilities[inside]


def choose(logits: torch.Tensor, sampling: Sampling, seen: Counter[int], generator: torch.Generator) -> Choice:
    """Choose the next token from float logits [vocabulary]; temperature 0 takes the likeliest.

    Raises ValueError if the logits hold NaN or only infinities.
    """
    scores = adjusted(logits, sampling, seen)
    if not math.isfinite(float(scores.max())):  # the maximum is NaN if any logit is
        raise ValueError("the model computed logits that are not numbers")
    if sampling.temperature < GREEDY_BELOW:
        token = int(scores.argmax())
    else:
        tokens, probabilities = candidates(scores, sampling)
        token = int(tokens[torch.multinomial(probabilities.cpu(), 1, generator=generator)])
    if sampling.logprobs is None:
        return Choice(token)
    logprobs = torch.log_softmax(logits, -1).clamp(min=LOWEST_LOGPROB)
    top = torch.topk(logprobs, min(sampling.logprobs, len(logprobs)))
    return Choice(token, float(logprobs[token]), tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True)))
