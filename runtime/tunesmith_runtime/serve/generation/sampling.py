"""From logits to the next token of one row. What a row gets depends on its logits, its settings and its seed alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

GREEDY_BELOW = 1e-5
"""Temperatures below are taken as 0: logits divided by less grow beyond what a float holds."""
LOWEST_LOGPROB = -9999.0
"""Log probability, as in the OpenAI API, of a token that the model rules out: JSON has no infinity."""


@dataclass(frozen=True)
class Sampling:
    """How the tokens of a row are chosen, in the words of the OpenAI API (`top_k` is the field's addition: 0 means all)."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    logprobs: int | None = None
    """How many of the likeliest tokens to tell with each token; 0 tells the chosen one's alone, None tells nothing."""


@dataclass(frozen=True)
class Choice:
    """A chosen token, with natural logarithms of the model's probabilities where they were asked for."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


def generator_for(sampling: Sampling) -> torch.Generator:
    """The random numbers of one row."""
    generator = torch.Generator()
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed % 2**63)
    return generator


def adjusted(logits: torch.Tensor, sampling: Sampling, seen: Counter[int]) -> torch.Tensor:
    """Logits [vocabulary] with bias and penalties on the tokens `seen` in the answer so far (as in the OpenAI API's guide)."""
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
    """Tokens that may be drawn and their probabilities, the likeliest first where top_k or top_p cut; temperature is at least GREEDY_BELOW.

    `top_p` keeps the smallest set of likeliest tokens whose probability reaches it (Holtzman et al., 2020).
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
    """The next token from float logits [vocabulary]; temperature 0 takes the likeliest.

    Raises ValueError where the model computed something that is not a number.
    """
    scores = adjusted(logits, sampling, seen)
    if not math.isfinite(float(scores.max())):  # the maximum of what holds a NaN is NaN
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
