"""The experience of a rollout of PPO: completions with the values and log-probabilities of their tokens, and their file in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tunesmith_runtime.data.examples import IGNORED
from tunesmith_runtime.train.batches import padded

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
    """What the value head is trained on."""


@dataclass(frozen=True)
class Rollout:
    """Completions that are sampled together, with the weights before the first step that learns from them."""

    number: tuple[int, int]
    """Pass over the prompts, and number of the rollout in it."""
    by_prompt: Mapping[int, Experience]
    """Index of the prompt -> its completion."""

    def save(self, folder: Path) -> None:
        """Write the rollout into the folder of a checkpoint."""
        rows = list(self.by_prompt.values())
        content = {
            "number": torch.tensor(self.number),
            "prompts": torch.tensor(list(self.by_prompt)),
            "lengths": torch.tensor([len(each.tokens) for each in rows]),
            "tokens": torch.tensor([token for each in rows for token in each.tokens]),
        }
        save_file(content | {name: torch.cat([vars(each)[name] for each in rows]) for name in PER_TOKEN}, folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> Rollout | None:
        """Read the rollout of a checkpoint; None if its last step had finished one."""
        if not (folder / FILE).is_file():
            return None
        content = load_file(folder / FILE)
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
