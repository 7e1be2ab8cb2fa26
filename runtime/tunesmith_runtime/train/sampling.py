"""Completions that a model samples while it trains, by transformers' generation in the process itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils.rnn import pad_sequence

from tunesmith_runtime.train.model import stop_ids
from tunesmith_runtime.train.reference import evaluating

if TYPE_CHECKING:
    from tunesmith_runtime.train.methods.base import Setup


@dataclass(frozen=True)
class Sampling:
    """How completions are sampled."""

    max_tokens: int
    """Tokens of a completion at most."""
    stop_ids: Sequence[int]
    """Tokens that end a completion."""
    pad_token: int
    temperature: float = 1.0
    """0: always the most probable token."""
    top_p: float = 1.0


def sampling_of(setup: Setup, max_tokens: int, temperature: float, top_p: float = 1.0) -> Sampling:
    """Return how a run samples: a completion ends with the tokens that end an answer when the model is served."""
    ends = sorted(stop_ids(setup.work.model(), setup.tokenizer))
    return Sampling(max_tokens, ends, setup.tokenizer.pad_token_id, temperature, top_p)


@torch.no_grad()
def sample(model: Any, prompts: Sequence[Sequence[int]], sampling: Sampling, seed: int) -> list[list[int]]:
    """Return the tokens of a completion of each prompt, up to and with the first that ends it.

    The completions depend on the arguments alone; random states and the mode of the model stay unchanged.
    """
    device = model.device
    ids = [torch.tensor(prompt) for prompt in prompts]
    padded = pad_sequence(ids, batch_first=True, padding_value=sampling.pad_token, padding_side="left").to(device)
    mask = pad_sequence([torch.ones_like(each) for each in ids], batch_first=True, padding_side="left")
    with evaluating(model), torch.random.fork_rng():
        torch.manual_seed(seed)
        sequences = model.generate(
            input_ids=padded,
            attention_mask=mask.to(device),
            **(
                {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
                if sampling.temperature
                else {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
            ),
            repetition_penalty=1.0,
            num_beams=1,
            max_new_tokens=sampling.max_tokens,
            eos_token_id=list(sampling.stop_ids),
            pad_token_id=sampling.pad_token,
            use_cache=True,
        )
    return [until_end(each, sampling.stop_ids) for each in sequences[:, padded.shape[1] :].tolist()]


def until_end(tokens: list[int], stop_ids: Sequence[int]) -> list[int]:
    """Return the tokens up to and with the first that ends an answer."""
    end = next((at + 1 for at, token in enumerate(tokens) if token in stop_ids), len(tokens))
    return tokens[:end]
