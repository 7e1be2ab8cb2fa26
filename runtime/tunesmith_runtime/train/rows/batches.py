"""Order of the rows in batches: random, with rows of similar length together to reduce padding."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Sampler

from tunesmith_runtime.data.example_file import FURTHER
from tunesmith_runtime.data.examples import IGNORED
from tunesmith_runtime.data.packing import token_weights

if TYPE_CHECKING:
    from datasets import Dataset

WINDOW = 8
"""Number of batches whose rows are sorted by length together. A larger window pads less and shuffles less."""


def order(lengths: Sequence[int], batch_size: int, seed: int, epoch: int | str) -> list[int]:
    """Return the indices of all rows for an epoch, or for a named window of a stream. Each `batch_size` successive
    indices are a batch, sorted by length.

    The order depends only on the arguments, so that a resumed run sees the rows in the same order.
    """
    generator = random.Random(f"{seed} {epoch}")
    shuffled = generator.sample(range(len(lengths)), len(lengths))
    ordered: list[int] = []
    for start in range(0, len(shuffled), batch_size * WINDOW):
        window = sorted(shuffled[start : start + batch_size * WINDOW], key=lambda index: lengths[index])
        batches = [window[at : at + batch_size] for at in range(0, len(window), batch_size)]
        smaller = [batches.pop()] if len(batches[-1]) < batch_size else []
        generator.shuffle(batches)
        ordered += [index for batch in batches + smaller for index in batch]
    return ordered


def padded(ids: Sequence[Sequence[int]], labels: Sequence[Sequence[int]], pad_token: int) -> dict[str, Tensor]:
    """Return a batch of sequences: input_ids, attention_mask and labels, each (sequences, length), padded at the end."""
    tokens = [torch.tensor(each) for each in ids]
    return {
        "input_ids": pad_sequence(tokens, batch_first=True, padding_value=pad_token),
        "attention_mask": pad_sequence([torch.ones_like(each) for each in tokens], batch_first=True),
        "labels": pad_sequence([torch.tensor(each) for each in labels], batch_first=True, padding_value=IGNORED),
    }


def weights_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Return the part of a batch with the factors of the loss of each token, (rows, length), padded at the end; empty without factors."""
    if "weights" not in rows[0]:
        return {}
    weights = [torch.tensor(token_weights(row["weights"], row["input_ids"])) for row in rows]
    return {"weights": pad_sequence(weights, batch_first=True)}


def append_blank(examples: Dataset, token: int) -> Dataset:
    """Return `examples` and, at the end, a row without labels, which fills up a batch and contributes nothing to the loss."""
    from datasets import Dataset, concatenate_datasets

    blank = {"input_ids": [[token, token]], "labels": [[IGNORED, IGNORED]], **{name: [None] for name in FURTHER}}
    blank = {name: blank[name] for name in examples.column_names}
    return concatenate_datasets([examples, Dataset.from_dict(blank, features=examples.features)])


class ByLength(Sampler[int]):
    """`order` as a sampler.

    Processes that train together take micro batches in turn, so that a step sees the same rows as in a single process.
    All need the same number of rows: `blank` is the index of the row that fills up the last batch of an epoch.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, blank: int | None = None) -> None:
        self._lengths, self._batch_size, self._seed, self._epoch = lengths, batch_size, seed, 0
        self._filling = [] if blank is None else [blank] * (-len(lengths) % batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch. The Trainer calls it before each epoch, and when it resumes."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return iter(order(self._lengths, self._batch_size, self._seed, self._epoch) + self._filling)

    def __len__(self) -> int:
        return len(self._lengths) + len(self._filling)


class InOrder(Sampler[int]):
    """Rows in their order, filled up to a multiple of `step` with the row behind them."""

    def __init__(self, rows: int, step: int = 1) -> None:
        self._rows = [*range(rows), *[rows] * (-rows % step)]

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


class Groups(Sampler[int]):
    """`order` of prompts, each with the rows of all its completions, which stay in one process.

    Processes take micro batches in turn. Each takes whole groups of a step: the rows of prompts that follow each other in `order`. The
    last step of an epoch is filled up for several processes with rows behind the last prompt.
    """

    def __init__(
        self, lengths: Sequence[int], prompts: int, group: int, seed: int, processes: int = 1, micro_batch: int = 1
    ) -> None:
        """`prompts`: number in a step. `group`: completions of a prompt. `micro_batch`: number of rows, a divisor of a
        process's rows in a step."""
        self._lengths, self._prompts, self._group, self._seed, self._epoch = lengths, prompts, group, seed, 0
        self._processes, self._micro_batch = processes, micro_batch
        self._filling = [len(lengths)] * (-len(lengths) % prompts if processes > 1 else 0)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch. The Trainer calls it before each epoch, and when it resumes."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        prompts = order(self._lengths, self._prompts, self._seed, self._epoch) + self._filling
        for start in range(0, len(prompts), self._prompts):
            step = prompts[start : start + self._prompts]
            yield from self._in_turn([prompt * self._group + row for prompt in step for row in range(self._group)])

    def _in_turn(self, rows: list[int]) -> Iterator[int]:
        """The rows of a step, in the order in which the processes take micro batches in turn."""
        share = len(rows) // self._processes
        for start in range(0, share, self._micro_batch):
            for process in range(self._processes):
                first = process * share + start
                yield from rows[first : min(first + self._micro_batch, (process + 1) * share)]

    def __len__(self) -> int:
        return (len(self._lengths) + len(self._filling)) * self._group
