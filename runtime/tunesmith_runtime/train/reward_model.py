"""A published reward model: loads it, and scores completions of prompts by their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tunesmith_runtime.data.turns import ANSWER
from tunesmith_runtime.tasks import REWARD
from tunesmith_runtime.train.batches import padded
from tunesmith_runtime.train.head import find_head, head_logits
from tunesmith_runtime.train.model import load_model, load_tokenizer, stop_ids

BATCH = 8
"""Sequences of a forward pass."""


@dataclass(frozen=True)
class RewardModel:
    """A reward model on its device, without gradients."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    """Its vocabulary is that of the tokens to score."""
    tail: tuple[int, ...]
    """What its chat template writes from the token on that ends an answer, such as `<|im_end|>` and a line break."""

    def score(self, prompts: Sequence[list[int]], completions: Sequence[list[int]], batch_size: int = BATCH) -> Tensor:
        """Return the score of each completion of its prompt, (completions,), in float32 on the CPU.

        A completion that ends with the token that ends an answer is scored as the rows of the training were: with the rest of
        what the template writes after an answer. One that was cut off is scored at its last token.
        """
        rows = [[*prompt, *self._ended(tokens)] for prompt, tokens in zip(prompts, completions, strict=True)]
        by_length = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        scores = torch.zeros(len(rows))
        for start in range(0, len(rows), batch_size):
            part = by_length[start : start + batch_size]
            scores[part] = self._batch([rows[index] for index in part])
        return scores

    def _ended(self, completion: list[int]) -> list[int]:
        is_ended = completion and self.tail and completion[-1] == self.tail[0]
        return [*completion, *self.tail[1:]] if is_ended else completion

    @torch.no_grad()
    def _batch(self, rows: list[list[int]]) -> Tensor:
        inputs = padded(rows, rows, self.tokenizer.pad_token_id)
        on_device = {name: each.to(self.model.device) for name, each in inputs.items()}
        return head_logits(self.model, find_head(self.model, REWARD), on_device)[:, 0].cpu()


def load_reward_model(
    folder: Path, dtype: torch.dtype = torch.float32, device: str = "cpu", trust_remote_code: bool = False
) -> RewardModel:
    """Load the artifact rewardModel in `folder`. Raises RunFailure (BadModel, ModelNotFound) if its files are incomplete."""
    tokenizer = load_tokenizer(folder, trust_remote_code)
    model = load_model(folder, trust_remote_code, REWARD, dtype=dtype).to(device).eval().requires_grad_(False)
    return RewardModel(model, tokenizer, tail_of(tokenizer, frozenset(stop_ids(folder, tokenizer))))


def tail_of(tokenizer: PreTrainedTokenizerBase, ends: frozenset[int]) -> tuple[int, ...]:
    """Return the tokens that the chat template writes after an answer, from the one that ends it; empty if there is none."""
    if not tokenizer.chat_template:
        return ()
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": ANSWER}]
    text = str(tokenizer.apply_chat_template(turns, tokenize=False)).rpartition(ANSWER)[2]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    start = next((at for at, token in enumerate(ids) if token in ends), None)
    return () if start is None or tokenizer.decode(ids[start + 1 :]).strip() else tuple(ids[start:])
