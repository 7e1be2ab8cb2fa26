"""Completions that a model samples during its training, with transformers' generation in the training process.

Each completion has its own random numbers, so that it depends on its seed, its prompt and the weights, but neither on
the other rows of its batch nor on the number of processes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import LogitsProcessorList

from tunesmith_api.batches import SAMPLED_ROWS
from tunesmith_runtime.train.losses.cross_entropy import virtual_tokens
from tunesmith_runtime.train.models.files import stop_ids
from tunesmith_runtime.train.models.reference import evaluating
from tunesmith_runtime.train.rows.media_batches import MEDIA, features_of

if TYPE_CHECKING:
    from tunesmith_runtime.multimodal.encoder import MediaEncoder
    from tunesmith_runtime.train.methods.base import Setup

STRIDE = 1_000_003
"""Distance between the seeds of two runs, or of two steps: more than a run has steps, or a step has micro batches."""
PLAIN: dict[str, Any] = {
    "do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_new_tokens": 0,
    "suppress_tokens": [], "begin_suppress_tokens": [], "use_cache": True,
}  # fmt: skip
"""Settings of generation that do not change the model's probabilities. They override its generation_config.json."""


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


def step_seed(seed: int, step: int) -> int:
    """Return the seed for sampling before a step of the run with `seed`."""
    return seed * STRIDE + step


def sample_rows(
    model: Any, rows: Sequence[Mapping[str, Any]], sampling: Sampling, seed: int, media: MediaEncoder | None = None
) -> list[list[int]]:
    """Return the tokens of a completion of each row of `Prompts`, SAMPLED_ROWS at a time, as `sample` does. `media` reads their images."""
    completions: list[list[int]] = []
    for start in range(0, len(rows), SAMPLED_ROWS):
        part = rows[start : start + SAMPLED_ROWS]
        prompts, numbers = [row["input_ids"] for row in part], [row["index"] for row in part]
        images = Images([row["media"] or () for row in part], media) if media else None
        completions += sample(model, prompts, sampling, seed, numbers, images)
    return completions


@dataclass(frozen=True)
class Images:
    """The images of prompts."""

    uris: Sequence[Sequence[str]]
    """Of each prompt, in the order of their slots."""
    media: MediaEncoder

    def inputs(self, places: Sequence[int], ids: Tensor) -> dict[str, Any]:
        """Return the arguments of generation beside the tokens `ids`, (prompts, length), of the prompts at `places`.

        No completion has a slot of an image, for which there would be no features.
        """
        found = features_of([self.uris[place] for place in places], ids, self.media)
        features = found.pop(MEDIA)
        inputs = {name: value.to(ids.device) for name, value in {**features, **found}.items()}
        return {**inputs, "suppress_tokens": sorted(self.media.processor.slot_ids)}


def sample(
    model: Any,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    seed: int,
    rows: Sequence[int] | None = None,
    images: Images | None = None,
) -> list[list[int]]:
    """Return the tokens of a completion of each prompt, up to and with the first that ends it.

    `rows`: numbers that, with `seed`, give each completion its own random numbers; by default the positions of the
    prompts. Random states and the mode of the model stay unchanged.
    """
    numbers = range(len(prompts)) if rows is None else rows
    found: dict[int, list[int]] = {}
    for places in batches_of(prompts, of_one_length=virtual_tokens(model) > 0):
        batch = [prompts[place] for place in places]
        seeds = [f"{seed} {numbers[place]}" for place in places]
        further = partial(images.inputs, places) if images else None
        completions = sample_batch(model, batch, sampling, seeds, further)
        found.update(zip(places, completions, strict=True))
    return [found[place] for place in range(len(prompts))]


def batches_of(prompts: Sequence[Sequence[int]], of_one_length: bool) -> list[list[int]]:
    """Return the positions of the prompts of each batch: one batch, or with `of_one_length` one for each length.
    Padding would separate virtual tokens from the prompt, and the model has learned them next to each other."""
    if not of_one_length:
        return [[*range(len(prompts))]]
    batches: dict[int, list[int]] = {}
    for place, prompt in enumerate(prompts):
        batches.setdefault(len(prompt), []).append(place)
    return list(batches.values())


@torch.no_grad()
def sample_batch(
    model: Any,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    seeds: Sequence[str],
    further: Callable[[Tensor], dict[str, Any]] | None = None,
) -> list[list[int]]:
    """Return a completion of each prompt as `sample`, with the random numbers of its seed.

    `further` returns further arguments of generation for the tokens of the prompts, (prompts, length).
    """
    ids = [torch.tensor(prompt) for prompt in prompts]
    padded = pad_sequence(ids, batch_first=True, padding_value=sampling.pad_token, padding_side="left")
    mask = pad_sequence([torch.ones_like(each) for each in ids], batch_first=True, padding_side="left")
    numbers = torch.tensor([uniforms(each, sampling.max_tokens) for each in seeds], dtype=torch.float64)
    draw = Draw(numbers.to(model.device), padded.shape[1], sampling)
    tokens = padded.to(model.device)
    with evaluating(model):
        sequences = model.generate(
            input_ids=tokens,
            attention_mask=mask.to(model.device),
            max_new_tokens=sampling.max_tokens,
            eos_token_id=list(sampling.stop_ids),
            pad_token_id=sampling.pad_token,
            logits_processor=LogitsProcessorList([draw] if sampling.temperature else []),
            synced_gpus=False,  # each process has whole weights, and may sample more or longer than others
            **{**PLAIN, **(further(tokens) if further else {})},
        )
    return [until_end(each, sampling.stop_ids) for each in sequences[:, padded.shape[1] :].tolist()]


class Draw:
    """A logits processor that leaves one token of each row, drawn with the row's own random number."""

    def __init__(self, numbers: Tensor, start: int, sampling: Sampling) -> None:
        """`numbers`: from 0 to 1, (rows, tokens of a completion at most). `start`: tokens of the padded prompts."""
        self._numbers, self._start, self._sampling = numbers, start, sampling

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores, (rows, vocabulary), of 0 for the drawn token and of -inf for all others."""
        number = self._numbers[:, input_ids.shape[1] - self._start]
        token = drawn(scores, number, self._sampling.temperature, self._sampling.top_p)
        return torch.full_like(scores, -torch.inf).scatter(1, token[:, None], 0.0)


def drawn(logits: Tensor, numbers: Tensor, temperature: float, top_p: float) -> Tensor:
    """Return the token of each row, (rows,): the first at which the cumulative probability exceeds the row's number.

    `logits`: (rows, vocabulary). `numbers`: (rows,), from 0 to 1. With `top_p` below 1, only the smallest set of most
    probable tokens that reaches this probability counts (Holtzman et al., 2019, https://arxiv.org/abs/1904.09751).
    """
    probabilities = (logits.double() / temperature).softmax(dim=1)
    if top_p < 1:
        falling, tokens = probabilities.sort(dim=1, descending=True, stable=True)
        is_outside = falling.cumsum(dim=1) - falling >= top_p
        probabilities = probabilities.masked_fill(is_outside.gather(1, tokens.argsort(dim=1)), 0.0)
    cumulative = probabilities.cumsum(dim=1)
    return torch.searchsorted(cumulative, numbers[:, None] * cumulative[:, -1:], right=True)[:, 0].clamp(
        max=logits.shape[1] - 1
    )


def uniforms(seed: str, count: int) -> list[float]:
    """Return `count` random numbers from 0 to 1, which depend only on the seed."""
    generator = random.Random(seed)
    return [generator.random() for _ in range(count)]


def until_end(tokens: list[int], stop_ids: Sequence[int]) -> list[int]:
    """Return the tokens up to and with the first that ends an answer."""
    end = next((at + 1 for at, token in enumerate(tokens) if token in stop_ids), len(tokens))
    return tokens[:end]
