"""The trainer of distillation: a student learns the probabilities of its teacher, for answers of the data and for its own.

In each step a share of the rows has its last answer replaced by one that the student samples with the weights that the step begins
with. Which rows, and their answers, depend on the seed of the run and the number of the step: a resumed run samples the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from heapq import nlargest
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tunesmith_runtime.data.example_file import last_answer_starts
from tunesmith_runtime.data.examples import IGNORED, last_answer_start
from tunesmith_runtime.train.losses.log_probs import answer_logits
from tunesmith_runtime.train.rollouts.clock import SamplingClock
from tunesmith_runtime.train.rollouts.sampler import STRIDE, Sampling, sample, sampling_of, step_seed
from tunesmith_runtime.train.rows.batches import padded
from tunesmith_runtime.train.trainers.row_loss import RowLoss, trainer_options
from tunesmith_runtime.train.validation import labelled_tokens

if TYPE_CHECKING:
    from tunesmith_runtime.train.methods.base import Setup

CHUNK_BYTES = 64 << 20
"""Size in float32 of the logits of a chunk, for which the divergence is computed at once. A chunk takes several times
as much memory."""


@dataclass(frozen=True)
class Objective:
    """Objective of a distillation."""

    loss: Callable[[Tensor, Tensor], Tensor]
    """Return the loss of each token from log-probabilities of student and teacher, (tokens, vocabulary)."""
    teacher: Any
    """A frozen model with the student's tokens."""
    sampled_share: float
    """Share of the rows for which the student samples the last answer."""


class DistillationTrainer(RowLoss):
    """The loss of a step is the mean over the labelled tokens of all its rows."""

    def __init__(self, *arguments: Any, objective: Objective, sampling: Sampling, **options: Any) -> None:
        self._objective, self._sampling, self._clock = objective, sampling, SamplingClock()
        super().__init__(*arguments, **options)

    def get_batch_samples(self, *arguments: Any, **options: Any) -> tuple[list[dict[str, Tensor]], Any]:
        """Replace the last answers of some rows of a step by sampled ones."""
        self.model.train()  # a resumed model is in the mode of evaluation, whose metrics are apart
        batches, _ = super().get_batch_samples(*arguments, **options)
        self.record({"sampling_share": self._clock.next_step()})
        if batches and self._objective.sampled_share:
            with self.strategy.whole_weights(self):
                batches = [self._with_samples(batch, part) for part, batch in enumerate(batches)]
        return batches, self._get_num_items_in_batch(batches, self.args.device)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss of a micro batch. `num_items_in_batch`: labelled tokens of the whole step."""
        teacher = self._objective.teacher.to(self.args.device)
        with torch.no_grad():
            wanted = answer_logits(teacher, teacher.get_output_embeddings(), inputs)
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        losses, divergences = self._compare(answer_logits(model, head, inputs), wanted)
        self.record({"kl": divergences})
        loss = self.mean_over_rows(losses, num_items_in_batch)
        return (loss, {}) if return_outputs else loss

    def _compare(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and KL(teacher, student) of each token, both (tokens,), from logits, (tokens, vocabulary).

        Intermediate values are recomputed in the backward pass, chunk by chunk: to keep them for all tokens would need
        many times the memory of the logits.
        """
        tokens = min(student.shape[1], teacher.shape[1])  # embeddings may be padded
        rows = max(1, CHUNK_BYTES // (4 * tokens))
        parts = [
            checkpoint(self._compare_chunk, mine[:, :tokens], theirs[:, :tokens], use_reentrant=False)
            for mine, theirs in zip(student.split(rows), teacher.split(rows), strict=True)
        ]
        losses, divergences = zip(*parts, strict=True)
        return torch.cat(losses), torch.cat(divergences)

    def _compare_chunk(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        mine, theirs = ((each.float() / self._sampling.temperature).log_softmax(dim=1) for each in (student, teacher))
        divergences = (theirs.exp() * (theirs - mine.detach())).sum(dim=1)
        return self._objective.loss(mine, theirs), divergences

    def _with_samples(self, batch: dict[str, Tensor], part: int) -> dict[str, Tensor]:
        """Return the micro batch with some of its last answers replaced by sampled ones. `part`: its number among the
        micro batches of this process in the step. Processes take micro batches in turn, so that its number among the
        micro batches of all processes, which is a part of the seed, does not depend on the number of processes.
        """
        number = part * self.group.replicas + self.group.replica
        seed = step_seed(self.args.seed, self.state.global_step) * STRIDE + number
        draw, rows = random.Random(seed), unpadded(batch)
        chosen = [row for row in rows if draw.random() < self._objective.sampled_share and row.answer_start]
        if not chosen:
            return batch
        prompts = [row.input_ids[: row.answer_start] for row in chosen]
        with self._clock.sampling(), self.accelerator.autocast():
            answers = sample(self.accelerator.unwrap_model(self.model), prompts, self._sampling, seed)
        for row, prompt, answer in zip(chosen, prompts, answers, strict=True):
            row.input_ids, row.labels = [*prompt, *answer], [*[IGNORED] * len(prompt), *answer]
        return collate([vars(row) for row in rows], self._sampling.pad_token)

    def _longest_rows(self, dataset: Any, size: int) -> dict[str, Tensor]:
        """The batch of the longest rows; a training row may get a sampled answer of full length."""
        if dataset is not self.train_dataset or not self._objective.sampled_share:
            return super()._longest_rows(dataset, size)
        most, token = self._sampling.max_tokens, self._sampling.pad_token
        ends = [start + most for start in last_answer_starts(dataset.data)]
        lengths = [max(each) for each in zip(self.row_lengths(dataset), ends, strict=True)]
        longest = nlargest(size, range(len(lengths)), key=lengths.__getitem__)
        rows = []
        for index in longest:
            ids, labels = dataset[index]["input_ids"], dataset[index]["labels"]
            if len(ids) < ends[index]:
                start = ends[index] - most
                ids, labels = [*ids[:start], *[token] * most], [*[IGNORED] * start, *[token] * most]
            rows.append({"input_ids": ids, "labels": labels})
        prepared: dict[str, Tensor] = self._prepare_inputs(collate(rows, token))
        return prepared

    def counted(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the number of labelled tokens of a micro batch."""
        return labelled_tokens(inputs)


@dataclass
class Row:
    """A row of a batch without its padding."""

    input_ids: list[int]
    labels: list[int]

    @property
    def answer_start(self) -> int:
        """Index of the first token of the last answer; 0 if there is no prompt."""
        return last_answer_start(self.labels)


def unpadded(batch: Mapping[str, Tensor]) -> list[Row]:
    """Return the rows of a batch."""
    counts = batch["attention_mask"].sum(dim=1).tolist()
    ids, labels = batch["input_ids"].tolist(), batch["labels"].tolist()
    return [Row(each[:count], marks[:count]) for each, marks, count in zip(ids, labels, counts, strict=True)]


def collate(rows: list[dict[str, Any]], pad_token: int) -> dict[str, Tensor]:
    """Return a batch of rows."""
    return padded([row["input_ids"] for row in rows], [row["labels"] for row in rows], pad_token)


def build_trainer(setup: Setup, objective: Objective, temperature: float, max_tokens: int) -> DistillationTrainer:
    """Return the trainer of an objective."""
    token = setup.tokenizer.pad_token_id
    return DistillationTrainer(
        **trainer_options(setup),
        data_collator=lambda rows: collate(rows, token),
        objective=objective,
        sampling=sampling_of(setup, max_tokens, temperature),
    )
