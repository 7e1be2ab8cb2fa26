"""The trainer of PPO: the policy samples a rollout, a value head values its tokens, and several passes learn from it.

A rollout has `minibatches` optimizer steps in each of its `epochs`. The content of a rollout is a function of the seed
and of the weights before its first step. A checkpoint has the value head and the current rollout, so that a resumed run
continues with the same rollout. Each of several processes samples a part of a rollout, and they exchange the parts.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from tunesmith_api.methods import Ppo
from tunesmith_runtime.data.examples import IGNORED
from tunesmith_runtime.train.losses.cross_entropy import before_next
from tunesmith_runtime.train.losses.log_probs import answer_logits
from tunesmith_runtime.train.methods.ppo import advantages, policy_losses, token_rewards, value_losses, whitened
from tunesmith_runtime.train.models.reference import Reference, evaluating
from tunesmith_runtime.train.models.value_head import Critic, last_hidden_states
from tunesmith_runtime.train.rewards import Rater, open_raters
from tunesmith_runtime.train.rollouts.clock import SamplingClock
from tunesmith_runtime.train.rollouts.experience import PER_TOKEN, Experience, Rollout, collate
from tunesmith_runtime.train.rollouts.rating import rate
from tunesmith_runtime.train.rollouts.sampler import Sampling, sample_rows, sampling_of, step_seed
from tunesmith_runtime.train.rows.batches import order
from tunesmith_runtime.train.trainers.row_loss import RowLoss, trainer_options

if TYPE_CHECKING:
    from tunesmith_runtime.train.methods.base import Setup


class ActorCriticTrainer(RowLoss):
    """The loss of a step is the mean over the tokens of its completions."""

    def __init__(
        self,
        *arguments: Any,
        ppo: Ppo,
        raters: Sequence[Rater],
        reference: Reference | None,
        sampling: Sampling,
        **options: Any,
    ) -> None:
        self._ppo, self._raters, self._reference, self._sampling = ppo, raters, reference, sampling
        self._rollout: Rollout | None = None
        self._clock = SamplingClock()
        super().__init__(*arguments, **options)
        self._critic = Critic(self.model.get_output_embeddings().weight.shape[1], self.args)

    def get_batch_samples(self, *arguments: Any, **options: Any) -> tuple[list[dict[str, Tensor]], Any]:
        """Return the micro batches of completions that a step learns from, after a new rollout where one begins."""
        self.model.train()  # a resumed model is in the mode of evaluation, whose metrics are apart
        self._critic.head.zero_grad()  # the Trainer does it for the model alone
        batches, _ = super().get_batch_samples(*arguments, **options)
        self.record({"sampling_share": self._clock.next_step()})
        number = self._rollouts.number_of(self.state.global_step)
        if self._rollout is None or self._rollout.number != number:
            self._rollout = self._sample_rollout(number)
        found = [self._batch(batch["rows"]) for batch in batches]
        tokens = torch.tensor(sum(len(batch["returns"]) for batch in found), device=self.args.device)
        return found, self.accelerator.reduce(tokens, "sum")

    def training_step(self, *arguments: Any, **options: Any) -> Tensor:
        """Let the value head make its step after the last micro batch of a step."""
        loss = super().training_step(*arguments, **options)
        if self.accelerator.sync_gradients:
            learning_rate = self.args.learning_rate * self.rate_share(self.state.global_step)
            self._critic.step(learning_rate, lambda gradient: self.accelerator.reduce(gradient, "mean"))
        return loss

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss of a micro batch. `num_items_in_batch`: tokens of the whole step."""
        log_probs, values = self._judge(model, inputs)
        policy = policy_losses(log_probs, inputs["log_probs"], inputs["advantages"], self._ppo)
        value = value_losses(values, inputs["values"], inputs["returns"], self._ppo)
        is_clipped = ((log_probs - inputs["log_probs"]).exp() - 1).abs() > self._ppo.clip_range
        self.record({"policy_loss": policy, "value_loss": value, "clip_ratio": is_clipped})
        loss = self.mean_over_rows(policy + self._ppo.value_coefficient * value, num_items_in_batch)
        return (loss, {}) if return_outputs else loss

    def resume(self, folder: Path) -> None:
        """Resume with the value head and the rollout of the checkpoint."""
        self._critic.load(folder)
        self._rollout = Rollout.load(folder)
        super().resume(folder)

    def _save_checkpoint(self, *arguments: Any, **options: Any) -> None:
        """Save the value head, and the rollout if the next step learns from it, with the state of the Trainer."""
        super()._save_checkpoint(*arguments, **options)
        if not self.args.should_save:
            return
        step = self.state.global_step
        folder = Path(str(self.args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{step}"
        self._critic.save(folder)
        if self._rollout and self._rollout.number == self._rollouts.number_of(step):
            self._rollout.save(folder)

    def _judge(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the log-probability of each token of the completions, and the value before it, both (tokens,)."""
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        targets = inputs["labels"][:, 1:]
        wanted = targets != IGNORED
        with last_hidden_states(head) as hidden:
            logits = answer_logits(model, head, inputs)
        log_probs = -cross_entropy(logits.float() / self._sampling.temperature, targets[wanted], reduction="none")
        return log_probs, self._critic.head(before_next(hidden[0], wanted, inputs["labels"].shape[1]))

    def _sample_rollout(self, number: tuple[int, int]) -> Rollout:
        """Return a rollout. Each process samples a part of it, and advantages are scaled over the whole."""
        prompts = self._rollouts.prompts(*number)
        own = prompts[self.group.replica :: self.group.replicas]
        with self.strategy.whole_weights(self):
            part = Rollout(number, dict(zip(own, self._sample_experiences(own), strict=True)))
        shared = self.group.share(part.to_bytes())[:: self.group.sharing]
        found = {prompt: each for file in shared for prompt, each in Rollout.from_bytes(file).by_prompt.items()}
        of_tokens = [found[prompt].advantages for prompt in prompts]
        scaled = whitened(torch.cat(of_tokens)).split(list(map(len, of_tokens)))
        pairs = zip(prompts, scaled, strict=True)
        return Rollout(number, {prompt: replace(found[prompt], advantages=each) for prompt, each in pairs})

    def _sample_experiences(self, prompts: Sequence[int]) -> list[Experience]:
        """Sample a completion of each prompt, reward it, and return the inputs of its loss, with unscaled advantages."""
        rows = [self.train_dataset[prompt * self._ppo.epochs] for prompt in prompts]
        completions = self._sample(rows)
        rating = rate(rows, completions, self._raters, self._sampling, self.processing_class)
        self.record(rating.metrics)
        size = self.args.per_device_train_batch_size
        parts = [slice(start, start + size) for start in range(0, len(rows), size)]
        judged = [each for part in parts for each in self._judge_rows(rows[part], completions[part])]
        experiences = []
        for tokens, score, (log_probs, reference, values) in zip(
            completions, rating.total.tolist(), judged, strict=True
        ):
            found = advantages(token_rewards(log_probs, reference, score, self._ppo), values, self._ppo)
            experiences.append(Experience(tokens, log_probs, values, found, found + values))
        self.record({"kl": torch.tensor([float((own - other).mean()) for own, other, _ in judged])})
        return experiences

    def _sample(self, rows: list[dict[str, Any]]) -> list[list[int]]:
        """Return a completion of each row."""
        model = self.accelerator.unwrap_model(self.model)
        with self._clock.sampling(), self.accelerator.autocast():
            return sample_rows(model, rows, self._sampling, step_seed(self.args.seed, self.state.global_step))

    def _judge_rows(
        self, rows: list[dict[str, Any]], completions: list[list[int]]
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return for each completion its log-probabilities by policy and reference, and its values, each (tokens,)."""
        inputs = self._prepare_inputs(collate(rows, completions, self._sampling.pad_token))
        with torch.no_grad(), evaluating(self.model), self.compute_loss_context_manager():
            log_probs, values = self._judge(self.model, inputs)
            reference = log_probs
            if self._reference is not None:
                of_tokens = self._reference.of_tokens(inputs, self._sampling.temperature)
                reference = of_tokens[inputs["labels"][:, 1:] != IGNORED]
        lengths = list(map(len, completions))
        columns = [each.float().cpu().split(lengths) for each in (log_probs, reference, values)]
        return list(zip(*columns, strict=True))

    def _batch(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Return a micro batch: input_ids, attention_mask and labels, (rows, length); the rollout's values of each
        token, (tokens,)."""
        assert self._rollout is not None, "sampled before its first step"
        by_prompt, epochs = self._rollout.by_prompt, self._ppo.epochs
        found = [Experience.blank() if row["columns"] is None else by_prompt[row["index"] // epochs] for row in rows]
        batch = collate(rows, [each.tokens for each in found], self._sampling.pad_token)
        return batch | {name: torch.cat([vars(each)[name] for each in found]) for name in PER_TOKEN}

    def _longest_rows(self, dataset: Any, size: int) -> dict[str, Tensor]:
        """A micro batch of the longest prompts with completions of full length, for the dry pass."""
        token, most = self._sampling.pad_token, self._sampling.max_tokens
        rows = [{"input_ids": [token] * max(dataset.lengths)}] * size
        batch = collate(rows, [[token] * most] * size, token)
        of_tokens = {name: torch.zeros(size * most) for name in PER_TOKEN}
        prepared: dict[str, Tensor] = self._prepare_inputs(batch | of_tokens)
        return prepared

    @cached_property
    def _rollouts(self) -> RolloutSampler:
        """The order of the prompts."""
        lengths, is_filled = list(self.train_dataset.lengths)[:: self._ppo.epochs], self.group.size > 1
        prompts = lengths[:-1] if is_filled else lengths
        return RolloutSampler(prompts, self.global_batch_size, self._ppo, self.args.seed, is_filled)

    def _get_train_sampler(self, train_dataset: Any = None) -> RolloutSampler:
        """Rollouts of prompts of similar length, in an order that depends only on the seed and the epoch."""
        return self._rollouts

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """Tokens are counted when they are sampled."""
        return None


class RolloutSampler(torch.utils.data.Sampler[int]):
    """The rows of the training steps: each pass over a rollout has its rows in another order. Several processes take
    micro batches in turn.
    """

    def __init__(self, lengths: Sequence[int], step_rows: int, ppo: Ppo, seed: int, is_filled: bool = False) -> None:
        """`lengths`: tokens of the prompts. `step_rows`: completions of an optimizer step. `is_filled`: whether the last step of an
        epoch is filled up with the row behind the last prompt."""
        self._lengths, self._step_rows, self._ppo, self._seed, self._epoch = lengths, step_rows, ppo, seed, 0
        rows = len(lengths) * ppo.epochs
        self._filling = [rows] * (-rows % step_rows if is_filled else 0)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch. The Trainer calls it before each epoch, and when it resumes."""
        self._epoch = epoch

    def number_of(self, step: int) -> tuple[int, int]:
        """Return the pass over the prompts and the number of the rollout in it that a step learns from."""
        epoch, within = divmod(step, -(-len(self) // self._step_rows))
        return epoch, within // (self._ppo.epochs * self._ppo.minibatches)

    def prompts(self, epoch: int, number: int) -> list[int]:
        """Return the prompts of a rollout."""
        size = self._step_rows * self._ppo.minibatches
        return order(self._lengths, size, self._seed, epoch)[number * size : (number + 1) * size]

    def __iter__(self) -> Iterator[int]:
        for number in range(-(-len(self._lengths) // (self._step_rows * self._ppo.minibatches))):
            prompts = self.prompts(self._epoch, number)
            for repetition in range(self._ppo.epochs):
                generator = random.Random(f"{self._seed} {self._epoch} {number} {repetition}")
                yield from (
                    prompt * self._ppo.epochs + repetition for prompt in generator.sample(prompts, len(prompts))
                )
        yield from self._filling

    def __len__(self) -> int:
        return len(self._lengths) * self._ppo.epochs + len(self._filling)


def build_trainer(setup: Setup, ppo: Ppo, reference: Reference | None) -> ActorCriticTrainer:
    """Return the trainer."""
    return ActorCriticTrainer(
        **trainer_options(setup),
        data_collator=lambda rows: {"rows": rows},
        ppo=ppo,
        raters=open_raters(setup),
        reference=reference,
        sampling=sampling_of(setup, ppo.max_completion_length, ppo.temperature, ppo.top_p),
    )
