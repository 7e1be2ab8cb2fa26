"""A reward model: loads it, and scores completions of prompts as its own tokenizer and chat template write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.data.row_error import RowError, row_errors
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.modelcheck.config import positions
from tunesmith_runtime.tasks import REWARD
from tunesmith_runtime.train.models.files import load_model, load_tokenizer
from tunesmith_runtime.train.models.head import find_head, head_logits
from tunesmith_runtime.train.rewards.base import Completion
from tunesmith_runtime.train.rewards.model import REFUSED, no_template
from tunesmith_runtime.train.rows.batches import padded

BATCH = 8
"""Sequences of a forward pass."""


@dataclass(frozen=True)
class RewardModel:
    """A reward model on its device, without gradients."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    """Of the reward, for messages."""

    @cached_property
    def head(self) -> nn.Module:
        """The layer that gives the score."""
        return find_head(self.model, REWARD)

    def to(self, device: torch.device) -> RewardModel:
        """Move the model to a device."""
        if self.model.device != device:
            self.model.to(device)
        return self

    def rate(self, completions: Sequence[Completion]) -> list[float]:
        """Return the score of each completion. Raises RunFailure (BadSpec) for one that the model cannot read."""
        rows = [self.tokens_of(each) for each in completions]
        most, longest = positions(self.model.config), max(map(len, rows))
        if most is not None and longest > most:
            raise RunFailure(
                FailureClass.BAD_SPEC,
                f"rewards[].model of {self.name}: a prompt with its completion has {longest} tokens, and the model {most} positions",
                "lower spec.training.maxLength or maxCompletionLength, or name a reward model with more positions",
            )
        return self.score(rows).tolist()  # type: ignore[no-any-return]

    def tokens_of(self, completion: Completion) -> list[int]:
        """Return the tokens of a prompt with its completion, as in the rows that method reward learns from.

        The chat template renders a finished completion. A completion that was cut off follows the prompt unchanged, and
        is scored at its last token. Plain text has no template.
        """
        prompt, end = completion.prompt.prompt, self.tokenizer.eos_token_id
        if isinstance(prompt, str):
            ids = list(self.tokenizer(prompt + completion.text)["input_ids"])
            ids = ids[:-1] if ids[-1:] == [end] else ids
            return [*ids, end] if completion.is_finished and end is not None else ids
        if not self.tokenizer.chat_template:
            raise no_template(self.name)
        answer = [{"role": "assistant", "content": completion.text}] if completion.is_finished else []
        try:
            with row_errors(REFUSED):
                text = self.tokenizer.apply_chat_template(
                    [*prompt, *answer],
                    tools=completion.prompt.tools,
                    tokenize=False,
                    add_generation_prompt=not completion.is_finished,
                )
        except RowError as error:
            raise RunFailure(
                FailureClass.BAD_SPEC,
                f"rewards[].model of {self.name}: a conversation {error}",
                "name a reward model of the model's family, or correct its chat template",
            ) from error
        whole = f"{text}{'' if completion.is_finished else completion.text}"
        return list(self.tokenizer(whole, add_special_tokens=False)["input_ids"])

    def score(self, rows: Sequence[list[int]], batch_size: int = BATCH) -> Tensor:
        """Return the score of each row of tokens, (rows,), in float32 on the CPU."""
        by_length = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        scores = torch.zeros(len(rows))
        for start in range(0, len(rows), batch_size):
            part = by_length[start : start + batch_size]
            scores[part] = self._batch([rows[index] for index in part])
        return scores

    @torch.no_grad()
    def _batch(self, rows: list[list[int]]) -> Tensor:
        inputs = padded(rows, rows, self.tokenizer.pad_token_id)
        on_device = {name: each.to(self.model.device) for name, each in inputs.items()}
        return head_logits(self.model, self.head, on_device)[:, 0].cpu()


def load_reward_model(folder: Path, name: str = "reward", dtype: torch.dtype = torch.float32) -> RewardModel:
    """Load the reward model in `folder`, of the reward `name`. Raises RunFailure (BadModel, ModelNotFound) if it is incomplete."""
    model = load_model(folder, task=REWARD, dtype=dtype)
    return RewardModel(model.eval().requires_grad_(False), load_tokenizer(folder), name)
