"""The experience of a rollout of PPO: completions with the values and log-probabilities of their tokens, and their file in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from tunesmith_runtime.data.examples import IGNORED
from tunesmith_runtime.train.rows.batches import padded

FILE = "experience.safetensors"
PER_TOKEN = ("log_probs", "values", "advantages", "returns")


@dataclass(frozen=True)
class Experience:
    """A completion; each tensor is (tokens,), in float32 on the CPU."""

    tokens: list[int]
    log_probs: Tensor
    """Of each token, by the policy that has sampled it."""
    values: Tensor
    """Of the state before each token, by the value head of that time."""
    advantages: Tensor
    returns: Tensor
    """Training data of the value head."""

    @classmethod
    def blank(cls) -> Experience:
        """Return the experience of a row that fills up a batch."""
        return cls([], *(torch.zeros(0) for _ in PER_TOKEN))


@dataclass(frozen=True)
class Rollout:
    """Completions that are sampled together, with the weights before the first step that learns from them."""

    number: tuple[int, int]
    """Pass over the prompts, and number of the rollout in it."""
    by_prompt: Mapping[int, Experience]
    """Index of the prompt -> its completion."""

    def save(self, folder: Path) -> None:
        """Write the rollout into the folder of a checkpoint."""
        (folder / FILE).write_bytes(self.to_bytes())

    @classmethod
    def load(cls, folder: Path) -> Rollout | None:
        """Read the rollout of a checkpoint; None if its last step had finished one."""
        return cls.from_bytes((folder / FILE).read_bytes()) if (folder / FILE).is_file() else None

    def to_bytes(self) -> bytes:
        """Return the rollout as a safetensors file."""
        rows = list(self.by_prompt.values())
        content = {
            "number": torch.tensor(self.number),
            "prompts": torch.tensor(list(self.by_prompt)),
            "lengths": torch.tensor([len(each.tokens) for each in rows]),
            "tokens": torch.tensor([token for each in rows for token in each.tokens]),
        }
        per_token = {name: torch.cat([torch.zeros(0), *(vars(each)[name] for each in rows)]) for name in PER_TOKEN}
        return save(content | per_token)

    @classmethod
    def from_bytes(cls, file: bytes) -> Rollout:
        """Return the rollout in a safetensors file."""
        content = load(file)
        lengths = content["lengths"].tolist()
        tokens = [each.tolist() for each in content["tokens"].split(lengths)]
        per_token = (content[name].split(lengths) for name in PER_TOKEN)
        experiences = [Experience(*row) for row in zip(tokens, *per_token, strict=True)]
        epoch, block = content["number"].tolist()
        return cls((epoch, block), dict(zip(content["prompts"].tolist(), experiences, strict=True)))


def collate(rows: Sequence[Mapping[str, Any]], completions: Sequence[list[int]], pad_token: int) -> dict[str, Tensor]:
    """Return a batch of rows, which are prompts, with their completions: input_ids, attention_mask and labels, each (rows, length)."""
    pairs = [(row["input_ids"], completion) for row, completion in zip(rows, completions, strict=True)]
    ids = [[*prompt, *completion] for prompt, completion in pairs]
    labels = [[*[IGNORED] * len(prompt), *completion] for prompt, completion in pairs]
    return padded(ids, labels, pad_token)
