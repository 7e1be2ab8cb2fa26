"""Completions that are sampled and not learned yet: their batches, and their file in a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from tunesmith_runtime.data.examples import IGNORED
from tunesmith_runtime.train.rows.batches import padded
from tunesmith_runtime.train.world.process_group import ProcessGroup

FILE = "rollout.safetensors"
BLANK = -1
"""Index of a row that fills up a batch."""


@dataclass(frozen=True)
class Answer:
    """A completion of a prompt, with the inputs of its loss."""

    index: int
    """Index of the prompt's row in the training rows."""
    tokens: list[int]
    advantage: float
    is_learned: bool = True
    """False: it only counts in the mean of its group."""
    log_probs: Tensor | None = None
    """Of each token when it was sampled, (tokens,); None where the weights do not change before it is learned."""


def collate(
    prompts: Sequence[list[int]], answers: Sequence[Answer], pad_token: int, has_old: bool = False
) -> dict[str, Tensor]:
    """Return a batch of prompts with their completions: input_ids, attention_mask and labels, (rows, length), of completions that
    are learned; advantages, (rows,); and old, the log-probabilities when they were sampled, (rows, length - 1)."""
    ids, labels = list[list[int]](), list[list[int]]()
    for prompt, answer in zip(prompts, answers, strict=True):
        ids.append([*prompt, *answer.tokens])
        learned = answer.tokens if answer.is_learned else [IGNORED] * len(answer.tokens)
        labels.append([*[IGNORED] * len(prompt), *learned])
    advantages = torch.tensor([answer.advantage for answer in answers])
    batch = {**padded(ids, labels, pad_token), "advantages": advantages}
    if not has_old:
        return batch
    is_token = batch["labels"][:, 1:] != IGNORED
    old = [answer.log_probs for answer in answers if answer.is_learned and answer.log_probs is not None]
    return {**batch, "old": torch.zeros(is_token.shape).masked_scatter(is_token, torch.cat([torch.zeros(0), *old]))}


def save_rollout(folder: Path, steps: Sequence[Sequence[Answer]], group: ProcessGroup) -> None:
    """Write the answers of all processes for each of the steps ahead; the leader writes."""
    parts = group.gather(to_bytes(steps))
    if group.is_leader:
        shares = [from_bytes(part) for part in parts[:: group.sharing]]
        whole = [[answer for share in shares for answer in share[step]] for step in range(len(steps))]
        (folder / FILE).write_bytes(to_bytes(whole))


def load_rollout(folder: Path, rows: int, group: ProcessGroup) -> list[list[Answer]]:
    """Return the answers of this process for each of the next steps: `rows` answers, or fewer in the last step of an
    epoch. The processes take their shares in the order of ranks, so that the number of processes may have changed
    since.
    """
    path = folder / FILE
    if not path.is_file():
        return []
    start = group.replica * rows
    shares = [step[start : start + rows] for step in from_bytes(path.read_bytes())]
    blank = Answer(BLANK, [], 0.0, is_learned=False)
    return [share + [blank] * (rows - len(share)) if group.replicas > 1 else share for share in shares]


def to_bytes(steps: Sequence[Sequence[Answer]]) -> bytes:
    """Return the answers as a safetensors file, without those that fill up batches."""
    kept = [[answer for answer in step if answer.index != BLANK] for step in steps]
    answers = [answer for step in kept for answer in step]
    content = {
        "steps": torch.tensor([len(step) for step in kept]),
        "index": torch.tensor([answer.index for answer in answers]),
        "length": torch.tensor([len(answer.tokens) for answer in answers]),
        "tokens": torch.tensor([token for answer in answers for token in answer.tokens]),
        "advantage": torch.tensor([answer.advantage for answer in answers]),
        "is_learned": torch.tensor([answer.is_learned for answer in answers]),
    }
    old = [answer.log_probs for answer in answers if answer.log_probs is not None]
    return save({**content, "log_probs": torch.cat(old)} if old else content)


def from_bytes(content: bytes) -> list[list[Answer]]:
    """Return the answers of each step."""
    columns: dict[str, Any] = load(content)
    lengths = columns["length"].tolist()
    old = columns["log_probs"].split(lengths) if "log_probs" in columns else [None] * len(lengths)
    answers = [
        Answer(*row)
        for row in zip(
            columns["index"].tolist(),
            [tokens.tolist() for tokens in columns["tokens"].split(lengths)],
            columns["advantage"].tolist(),
            columns["is_learned"].tolist(),
            old,
            strict=True,
        )
    ]
    ends = columns["steps"].cumsum(0).tolist()
    return [answers[start:end] for start, end in zip([0, *ends], ends, strict=False)]
