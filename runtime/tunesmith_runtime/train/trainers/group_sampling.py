"""The trainer of methods that sample a group of completions for each prompt and learn from their rewards.

Completions are sampled for one or several steps at once, with the weights before the first of these steps. The seed of
a completion is made of the seed of the run, the number of that step and the row. A checkpoint holds the completions of
the steps that remain, so that a resumed run learns from the same ones.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from tunesmith_api.methods import RolloutEngine, Rollouts
from tunesmith_runtime.train.losses.log_probs import token_log_probs
from tunesmith_runtime.train.losses.policy_loss import Sampled, divergence
from tunesmith_runtime.train.models.merged_weights import merged_weights
from tunesmith_runtime.train.models.reference import Reference, evaluating
from tunesmith_runtime.train.rewards import Rater, open_raters
from tunesmith_runtime.train.rollouts.rating import rate
from tunesmith_runtime.train.rollouts.rollout import BLANK, Answer, collate, load_rollout, save_rollout
from tunesmith_runtime.train.rollouts.sampler import Sampling, sample_rows, sampling_of, step_seed
from tunesmith_runtime.train.rollouts.vllm_sampler import VllmSampler, open_sampler
from tunesmith_runtime.train.rows.batches import Groups
from tunesmith_runtime.train.rows.media_batches import MEDIA, features_of
from tunesmith_runtime.train.trainers.row_loss import RowLoss, is_row, trainer_options

if TYPE_CHECKING:
    from tunesmith_runtime.multimodal.encoder import MediaEncoder
    from tunesmith_runtime.train.methods.base import Setup


@dataclass(frozen=True)
class Policy:
    """Advantages and loss of a method."""

    advantages: Callable[[Tensor], Tensor]
    """Return the advantage of each completion from the rewards (groups, completions) of groups; of the same shape."""
    loss: Callable[[Sampled, int, int], Tensor]
    """Return a micro batch's part of the loss of a step. The numbers are the completions and the tokens of the step."""
    clipped: Callable[[Sampled], Tensor]
    """Return the share of clipped tokens of each completion, (rows,)."""
    reference: Reference | None = None
    reward_beta: float = 0.0
    """Weight of the KL divergence from the reference in the reward. With 0, a divergence is a term of the loss."""


class GroupTrainer(RowLoss):
    """Samples the completions of a rollout before it computes their gradients, step by step in micro batches."""

    def __init__(
        self,
        *arguments: Any,
        policy: Policy,
        rollouts: Rollouts,
        raters: Sequence[Rater],
        sampling: Sampling,
        vllm: VllmSampler | None = None,
        media: MediaEncoder | None = None,
        **options: Any,
    ) -> None:
        self._policy, self._rollouts, self._raters, self._sampling = policy, rollouts, raters, sampling
        self._vllm, self._media = vllm, media
        self._ahead: deque[list[Answer]] = deque()
        self._resumed_steps = 0
        self._rollout_began, self._sampling_seconds = time.monotonic(), 0.0
        super().__init__(*arguments, **options)

    def get_batch_samples(self, iterator: Any, count: int, device: torch.device) -> tuple[list[Any], Any]:
        """Replace the prompts of a step by micro batches of completions. The first step of a rollout samples the
        completions of all its steps."""
        self.model.train()  # a resumed model is in the mode of evaluation, whose metrics are apart
        for _ in range(self._resumed_steps):
            super().get_batch_samples(iterator, self.args.gradient_accumulation_steps, device)
        self._resumed_steps = 0
        if not self._ahead:
            steps = min(self._rollouts.steps_per_rollout, self.args.max_steps - self.state.global_step)
            prompts = [
                super(GroupTrainer, self).get_batch_samples(iterator, self.args.gradient_accumulation_steps, device)[0]
                for _ in range(steps)
            ]
            self._roll_out([[row for batch in batches for row in batch["rows"]] for batches in prompts if batches])
        if not self._ahead:
            return [], None
        answers = self._ahead.popleft()
        learned = [answer for answer in answers if answer.is_learned]
        size = self.args.per_device_train_batch_size
        batches = [
            self._batch(answers[start : start + size], self._needs_old) for start in range(0, len(answers), size)
        ]
        counts = torch.tensor([len(learned), sum(len(answer.tokens) for answer in learned)], device=device)
        return batches, self.accelerator.reduce(counts, "sum")

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss of a micro batch. `num_items_in_batch`: completions and tokens of the whole step."""
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        log_probs, is_token = token_log_probs(model, head, inputs, self._rollouts.temperature)
        reference = None if self._policy.reward_beta else self._by_reference(inputs)
        sampled = Sampled(log_probs, is_token, inputs["advantages"], inputs.get("old"), reference)
        self._record_policy(sampled, is_row(inputs))
        if num_items_in_batch is None:
            counts, scale = (int(is_row(inputs).sum()), int(is_token.sum())), 1
        else:
            counts, scale = tuple(num_items_in_batch.tolist()), self.group.size  # DDP averages gradients
        loss = self._policy.loss(sampled, *(max(1, each) for each in counts)) * scale
        return (loss, {}) if return_outputs else loss

    def resume(self, folder: Path) -> None:
        """Resume from a checkpoint, which may lie within a rollout."""
        self._ahead.extend(load_rollout(folder, self.global_batch_size // self.group.replicas, self.group))
        self._resumed_steps = len(self._ahead)
        super().resume(folder)

    def _save_checkpoint(self, *arguments: Any, **options: Any) -> None:
        """Save the completions that are not learned yet with the state of the Trainer."""
        super()._save_checkpoint(*arguments, **options)
        if self._ahead:
            folder = Path(str(self.args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            save_rollout(folder, self._ahead, self.group)

    def _roll_out(self, steps: list[list[dict[str, Any]]]) -> None:
        """Sample and rate a completion of each row of the steps ahead."""
        now = time.monotonic()
        if self._sampling_seconds:
            share = self._sampling_seconds / (now - self._rollout_began)
            self.record({"sampling_share": torch.tensor([share])})
        self._rollout_began = now
        rows = [row for step in steps for row in step if row["columns"] is not None]
        with self.strategy.whole_weights(self):
            completions = self._sample(rows)
            self._sampling_seconds = time.monotonic() - now
            answers = {answer.index: answer for answer in self._rate(rows, completions)}
        blank = Answer(BLANK, [], 0.0, is_learned=False)
        self._ahead.extend([answers.get(row["index"], blank) for row in step] for step in steps)

    def _sample(self, rows: list[dict[str, Any]]) -> list[list[int]]:
        """Return a completion of each row."""
        model = self.accelerator.unwrap_model(self.model)
        seed = step_seed(self.args.seed, self.state.global_step)
        if self._vllm:
            self._vllm.load(merged_weights(model))
            return self._vllm.sample_rows(rows, self._sampling, seed)
        with self.accelerator.autocast():
            return sample_rows(model, rows, self._sampling, seed, self._media)

    def _rate(self, rows: list[dict[str, Any]], completions: list[list[int]]) -> list[Answer]:
        """Reward the completions, record the rewards, and return the completions with their advantages."""
        rating = rate(rows, completions, self._raters, self._sampling, self.processing_class)
        old, penalties = self._measure(rows, completions)
        size = self._rollouts.num_generations
        groups = (rating.total - penalties).reshape(len(rows) // size, size)
        deviations = groups.std(dim=1)
        self.record({**rating.metrics, "reward_std": deviations[~deviations.isnan()]})
        advantages = self._policy.advantages(groups).flatten().tolist()
        is_learned = [finished or not self._rollouts.mask_truncated for finished in rating.is_finished]
        return [
            Answer(row["index"], *each)
            for row, *each in zip(rows, completions, advantages, is_learned, old, strict=True)
        ]

    def _measure(self, rows: list[dict[str, Any]], completions: list[list[int]]) -> tuple[list[Tensor | None], Tensor]:
        """Return the log-probabilities of each completion, if the loss needs them; and the penalty on its reward for
        the divergence from the reference, (rows,)."""
        penalties = torch.zeros(len(rows))
        if not self._needs_old and not self._policy.reward_beta:
            return [None] * len(rows), penalties
        answers = [Answer(row["index"], tokens, 0.0) for row, tokens in zip(rows, completions, strict=True)]
        old: list[Tensor | None] = []
        divergences: list[Tensor] = []
        size = self.args.per_device_train_batch_size
        model = self.accelerator.unwrap_model(self.model)
        for start in range(0, len(answers), size):
            inputs = self._prepare_inputs(self._batch(answers[start : start + size]))
            with torch.no_grad(), evaluating(model), self.accelerator.autocast():
                head = model.get_output_embeddings()
                log_probs, is_token = token_log_probs(model, head, inputs, self._rollouts.temperature)
            old += [each[mask].cpu() for each, mask in zip(log_probs, is_token, strict=True)]
            if self._policy.reward_beta and (reference := self._by_reference(inputs)) is not None:
                divergences.append(((log_probs - reference) * is_token).sum(dim=1).cpu())
        if self._policy.reward_beta:
            divergence_of_rows = torch.cat([penalties[:0], *divergences])
            self.record({"kl": divergence_of_rows})
            penalties = self._policy.reward_beta * divergence_of_rows
        return old if self._needs_old else [None] * len(rows), penalties

    def _by_reference(self, inputs: dict[str, Tensor]) -> Tensor | None:
        """Log-probabilities of tokens by the reference model, where the method has one."""
        if self._policy.reference is None:
            return None
        with self.accelerator.autocast():
            return self._policy.reference.of_tokens(inputs, self._rollouts.temperature)

    def _record_policy(self, sampled: Sampled, is_learned: Tensor) -> None:
        if sampled.reference is not None:
            of_tokens = divergence(sampled.log_probs.detach(), sampled.reference) * sampled.is_token
            self.record({"kl": (of_tokens.sum(dim=1) / sampled.lengths)[is_learned]})
        if sampled.old is not None:
            self.record({"clip_ratio": self._policy.clipped(sampled)[is_learned]})

    @property
    def _needs_old(self) -> bool:
        """Whether the weights change between the sampling of a completion and its step."""
        return self._rollouts.steps_per_rollout > 1

    def _batch(self, answers: Sequence[Answer], has_old: bool = False) -> dict[str, Tensor]:
        """Return a micro batch of answers, with the log-probabilities when they were sampled if `has_old`."""
        blank = {"input_ids": [self.processing_class.pad_token_id] * 2}
        dataset: Any = self.train_dataset
        rows = [blank if answer.index == BLANK else dataset[answer.index] for answer in answers]
        batch = collate([list(row["input_ids"]) for row in rows], answers, self.processing_class.pad_token_id, has_old)
        if not self._media:
            return batch
        return batch | features_of([row.get(MEDIA) or () for row in rows], batch["input_ids"], self._media)

    def _longest_rows(self, dataset: Any, size: int) -> dict[str, Tensor]:
        """A micro batch of the longest prompts with completions of full length, for the dry pass."""
        lengths, tokens = (
            list(dataset.lengths),
            [self.processing_class.pad_token_id] * self._rollouts.max_completion_length,
        )
        longest = Answer(lengths.index(max(lengths)), tokens, 1.0, log_probs=torch.zeros(len(tokens)))
        batch = self._batch([longest] * size, self._needs_old)
        prepared: dict[str, Tensor] = self._prepare_inputs(batch)
        return prepared

    def _get_train_sampler(self, train_dataset: Any = None) -> Groups:
        """Prompts of similar length together, in an order that depends only on the seed and the epoch."""
        prompts: Any = self.train_dataset
        blanks = 1 if self.group.size > 1 else 0
        lengths = list(prompts.lengths)[:: prompts.group]
        return Groups(
            lengths[: len(lengths) - blanks],
            self.global_batch_size // prompts.group,
            prompts.group,
            self.args.seed,
            self.group.replicas,
            self.args.per_device_train_batch_size,
        )

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """Rows are counted when they are sampled."""
        return None


def build_trainer(setup: Setup, policy: Policy, rollouts: Rollouts) -> GroupTrainer:
    """Return the trainer of a policy."""
    return GroupTrainer(
        **trainer_options(setup),
        data_collator=lambda rows: {"rows": rows},
        policy=policy,
        rollouts=rollouts,
        raters=open_raters(setup),
        sampling=sampling_of(setup, rollouts.max_completion_length, rollouts.temperature, rollouts.top_p),
        vllm=open_sampler(setup, rollouts) if rollouts.engine is RolloutEngine.VLLM else None,
        media=setup.media,
    )
