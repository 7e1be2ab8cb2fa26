"""The trainer of GRPO: the model writes a group of completions for each prompt, and learns from what rewards make of them.

Each step samples its completions with the weights that the step begins with, so that the policy of the samples is that of the
gradient. The seed of the run and the number of the step are the seed of the sampling: a resumed run samples the same completions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tunesmith_api.methods import Grpo, Reward
from tunesmith_runtime.data.examples import IGNORED
from tunesmith_runtime.train.batches import order, padded
from tunesmith_runtime.train.log_probs import token_log_probs
from tunesmith_runtime.train.reference import Reference
from tunesmith_runtime.train.rewards import SCORERS, Completion
from tunesmith_runtime.train.row_loss import RowLoss, trainer_options
from tunesmith_runtime.train.sampling import Sampling, sample, sampling_of

if TYPE_CHECKING:
    from tunesmith_runtime.train.methods.base import Setup


STRIDE = 1_000_003
"""Distance of the seeds of two runs, and of two steps: more than a run has steps, or a step micro batches."""


@dataclass(frozen=True)
class Sampled:
    """Log-probabilities of a micro batch of completions; each tensor is (rows, tokens)."""

    log_probs: Tensor
    is_token: Tensor
    """Whether there is a token of the completion; elsewhere is its prompt, or padding."""
    reference: Tensor | None
    """Log-probabilities by the reference model, for a loss with a KL term."""
    advantages: Tensor
    """(rows,)"""


@dataclass(frozen=True)
class Policy:
    """What a method makes of rewards and completions."""

    advantages: Callable[[Tensor], Tensor]
    """Return the advantage of each completion from the rewards (groups, completions) of groups; of the same shape."""
    loss: Callable[[Sampled, int, int], Tensor]
    """Return the part of a micro batch of the loss of a step, which has so many rows and so many tokens."""
    reference: Reference | None = None


class GroupTrainer(RowLoss):
    """Samples the completions of a step before it computes their gradients, in micro batches."""

    def __init__(
        self,
        *arguments: Any,
        policy: Policy,
        grpo: Grpo,
        rewards: Sequence[Reward],
        sampling: Sampling,
        **options: Any,
    ) -> None:
        self._policy, self._grpo, self._rewards, self._sampling = policy, grpo, rewards, sampling
        self._step_began, self._sampling_seconds = time.monotonic(), 0.0
        super().__init__(*arguments, **options)

    def get_batch_samples(self, *arguments: Any, **options: Any) -> tuple[list[Any], Any]:
        """Replace the prompts of a step by micro batches of sampled completions."""
        self.model.train()  # a resumed model is in the mode of evaluation, whose metrics are apart
        batches, _ = super().get_batch_samples(*arguments, **options)
        rows = [row for batch in batches for row in batch["rows"]]
        if not rows:
            return batches, None
        now = time.monotonic()
        step_seconds, self._step_began = now - self._step_began, now
        if self._sampling_seconds:
            self.record({"sampling_share": torch.tensor([self._sampling_seconds / step_seconds])})
        size = self.args.per_device_train_batch_size
        parts = [slice(start, start + size) for start in range(0, len(rows), size)]
        completions = [tokens for number, part in enumerate(parts) for tokens in self._sample(rows[part], number)]
        self._sampling_seconds = time.monotonic() - now
        advantages = self._advantages(rows, completions)
        sampled = [self._batch(rows[part], completions[part], advantages[part]) for part in parts]
        return sampled, torch.tensor([len(rows), sum(map(len, completions))])

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss of a micro batch. `num_items_in_batch`: rows and tokens of the whole step."""
        advantages = inputs["advantages"]
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        log_probs, is_token = token_log_probs(model, head, inputs, self._grpo.temperature)
        reference = None
        if self._policy.reference is not None:
            with self.accelerator.autocast():
                reference = self._policy.reference.of_tokens(inputs, self._grpo.temperature)
            self._record_divergence(log_probs.detach(), reference, is_token)
        sampled = Sampled(log_probs, is_token, reference, advantages)
        whole = (len(advantages), int(is_token.sum())) if num_items_in_batch is None else num_items_in_batch.tolist()
        loss = self._policy.loss(sampled, *whole)
        return (loss, {}) if return_outputs else loss

    def _sample(self, rows: list[dict[str, Any]], part: int) -> list[list[int]]:
        """Return a completion of each row of the micro batch with the number `part` in its step."""
        seed = (self.args.seed * STRIDE + self.state.global_step) * STRIDE + part
        with self.accelerator.autocast():
            model = self.accelerator.unwrap_model(self.model)
            return sample(model, [row["input_ids"] for row in rows], self._sampling, seed)

    def _advantages(self, rows: list[dict[str, Any]], completions: list[list[int]]) -> Tensor:
        """Reward the completions, record the rewards, and return the advantage of each, (rows,)."""
        texts = self.processing_class.batch_decode(completions, skip_special_tokens=True)
        most = self._grpo.max_completion_length
        scored = [
            Completion(text, len(tokens), most, row["columns"])
            for row, tokens, text in zip(rows, completions, texts, strict=True)
        ]
        total = torch.zeros(len(rows))
        for reward in self._rewards:
            values = torch.tensor([SCORERS[reward.type].score(each, reward) for each in scored])
            self.record({f"rewards/{reward.name}": values})
            total += reward.weight * values
        groups = total.unflatten(0, (-1, self._grpo.num_generations))
        self._record_samples(total, groups, completions)
        return self._policy.advantages(groups).flatten()

    def _record_samples(self, total: Tensor, groups: Tensor, completions: list[list[int]]) -> None:
        ends = torch.tensor([float(bool(tokens) and tokens[-1] in self._sampling.stop_ids) for tokens in completions])
        self.record(
            {
                "reward": total,
                "reward_std": groups.std(dim=1),
                "completions/length": torch.tensor([float(len(tokens)) for tokens in completions]),
                "completions/unfinished": 1 - ends,
            }
        )

    def _record_divergence(self, log_probs: Tensor, reference: Tensor, is_token: Tensor) -> None:
        of_rows = (divergence(log_probs, reference) * is_token).sum(dim=1) / is_token.sum(dim=1).clamp(min=1)
        self.record({"kl": of_rows})

    def _batch(self, rows: list[dict[str, Any]], completions: list[list[int]], advantages: Tensor) -> dict[str, Tensor]:
        """Return a micro batch: input_ids, attention_mask and labels, (rows, length); advantages, (rows,)."""
        token = self.processing_class.pad_token_id
        return {**collate(rows, completions, token), "advantages": advantages}

    def _longest_rows(self, dataset: Any) -> dict[str, Tensor]:
        """A micro batch of the longest prompts with completions of full length, for the dry pass."""
        count = self.args.per_device_train_batch_size
        longest = max(dataset.lengths)
        token = self.processing_class.pad_token_id
        rows = [{"input_ids": [token] * longest}] * count
        completions = [[token] * self._grpo.max_completion_length] * count
        batch = self._batch(rows, completions, torch.ones(count))
        prepared: dict[str, Tensor] = self._prepare_inputs(batch)
        return prepared

    def _get_train_sampler(self, train_dataset: Any = None) -> GroupSampler:
        """Prompts of similar length together, in an order that depends on the seed and the epoch alone."""
        prompts = self.train_dataset
        group = prompts.group
        return GroupSampler(list(prompts.lengths)[::group], self.global_batch_size // group, group, self.args.seed)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """Rows are counted when they are sampled."""
        return None


class GroupSampler(torch.utils.data.Sampler[int]):
    """`order` of the prompts, each with all rows of its group."""

    def __init__(self, lengths: Sequence[int], prompts: int, group: int, seed: int) -> None:
        self._lengths, self._prompts, self._group, self._seed, self._epoch = lengths, prompts, group, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch. The Trainer calls it before each epoch, and when it resumes."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        for prompt in order(self._lengths, self._prompts, self._seed, self._epoch):
            yield from range(prompt * self._group, (prompt + 1) * self._group)

    def __len__(self) -> int:
        return len(self._lengths) * self._group


def collate(rows: list[dict[str, Any]], completions: list[list[int]], pad_token: int) -> dict[str, Tensor]:
    """Return a batch of prompts with their completions, which have labels."""
    prompts = [row["input_ids"] for row in rows]
    ids = [[*prompt, *tokens] for prompt, tokens in zip(prompts, completions, strict=True)]
    labels = [[*[IGNORED] * len(prompt), *tokens] for prompt, tokens in zip(prompts, completions, strict=True)]
    return padded(ids, labels, pad_token)


def divergence(log_probs: Tensor, reference: Tensor) -> Tensor:
    """Return the estimate of the KL divergence at each token: exp(d) - d - 1 with d = reference - log_probs
    (Schulman, 2020, http://joschu.net/blog/kl-approx.html), never negative."""
    delta = reference - log_probs
    return delta.exp() - delta - 1


def build_trainer(setup: Setup, policy: Policy, grpo: Grpo) -> GroupTrainer:
    """Return the trainer of a policy."""
    return GroupTrainer(
        **trainer_options(setup),
        data_collator=lambda rows: {"rows": rows},
        policy=policy,
        grpo=grpo,
        rewards=setup.job.rewards or (),
        sampling=sampling_of(setup, grpo.max_completion_length, grpo.temperature, grpo.top_p),
    )
