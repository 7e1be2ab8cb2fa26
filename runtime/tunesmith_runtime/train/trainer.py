"""TRL's SFTTrainer with a lean loss, batches by length, and an end to it as soon as the loss is no number."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from trl import SFTTrainer

from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import Scheduler
from tunesmith_runtime.data.examples import IGNORED
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.batches import ByLength
from tunesmith_runtime.train.checkpoint import StopEvaluation, misses_evaluation
from tunesmith_runtime.train.loss import answer_loss, fits
from tunesmith_runtime.train.process_group import ALONE, Peers
from tunesmith_runtime.train.schedule import share

FUSED_DEVICES = frozenset({"cuda", "xpu"})
"""Devices where TRL's own loss skips unlabelled positions (trl.kernels.chunked_logprob)."""


class Trainer(SFTTrainer):
    """SFTTrainer for rows that are encoded already (`input_ids`, `labels`).

    With peers, the last row of `train_dataset` is the blank one that batches are filled up with.
    """

    def __init__(self, *arguments: Any, peers: Peers = ALONE, **options: Any) -> None:
        self._peers = peers
        super().__init__(*arguments, **options)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss; equal to TRL's, without its logits of unlabelled positions and its metrics over them."""
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        fused = self.args.device.type in FUSED_DEVICES or self.aux_loss_enabled or return_outputs
        # TRL's way gathers figures from all processes, so all must take the same way.
        if fused or self._peers.any(not fits(inputs["labels"], head.weight.shape[0]))[0]:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss = answer_loss(model, head, inputs, num_items_in_batch)
        # The tokens are those of all processes, and DDP takes the mean of their gradients.
        return loss if num_items_in_batch is None else loss * self._peers.size

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """One forward and backward pass. Raises RunFailure (Diverged) where the loss is NaN or infinite."""
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            raise RunFailure(
                FailureClass.DIVERGED, f"the loss became {loss.item()} in step {self.state.global_step + 1}"
            )
        return loss

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        """The learning rate by `schedule.share`."""
        steps, name = num_training_steps, self.args.lr_scheduler_type
        rate = partial(share, steps=steps, warmup=self.args.get_warmup_steps(steps), scheduler=Scheduler(name.value))
        self.lr_scheduler: LambdaLR = LambdaLR(optimizer or self.optimizer, rate)
        return self.lr_scheduler

    def dry_pass(self, model: nn.Module) -> None:
        """Forward, backward and evaluation of the longest rows, so that what does not fit fails before the first step.

        Leaves weights, gradients and random states as they were.
        """
        with torch.random.fork_rng():
            model.train()
            with self.compute_loss_context_manager():
                loss = self.compute_loss(model, self._longest(self.train_dataset))
            self.accelerator.backward(loss)
            model.zero_grad()
            if self.eval_dataset is not None:
                model.eval()
                with torch.no_grad(), self.compute_loss_context_manager():
                    self.compute_loss(model, self._longest(self.eval_dataset))
                model.train()
        for figures in self._metrics.values():
            figures.clear()

    def _longest(self, dataset: Any) -> dict[str, Tensor]:
        """The batch of the longest rows of `dataset`."""
        lengths = [len(ids) for ids in dataset["input_ids"]]
        longest = sorted(range(len(lengths)), key=lambda index: -lengths[index])[: self.args.train_batch_size]
        return self._prepare_inputs(self.data_collator([dataset[index] for index in longest]))

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> ByLength:
        """Batches of rows of like length, in an order that depends on the seed and the epoch alone."""
        lengths = [len(ids) for ids in self.train_dataset["input_ids"]]
        batch = self.args.train_batch_size * self.args.gradient_accumulation_steps * self._peers.size
        if self._peers.size == 1:
            return ByLength(lengths, batch, self.args.seed)
        return ByLength(lengths[:-1], batch, self.args.seed, blank=len(lengths) - 1)

    def _run_epoch(self, *, epoch: int, train_dataloader: Any, **rest: Any) -> None:
        """Tell the sampler the epoch: in a resumed one, the batches to skip hide the sampler of several processes from
        accelerate, and it would give the rows of the first epoch."""
        train_dataloader.set_epoch(epoch)
        super()._run_epoch(epoch=epoch, train_dataloader=train_dataloader, **rest)

    def _track_num_input_tokens(self, inputs: dict[str, Any]) -> None:
        """Count the tokens of the rows, not of the blank ones beside them."""
        rows = (inputs["labels"] != IGNORED).any(dim=1)
        super()._track_num_input_tokens({**inputs, "attention_mask": inputs["attention_mask"][rows]})

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        """The validation loss; nothing where the pod is asked to stop meanwhile.

        Leaves the random states as they were (a DataLoader draws from them), so that a run goes on the same whether it
        evaluated or not.
        """
        try:
            with torch.random.fork_rng():
                return super().evaluate(*arguments, **options)
        except StopEvaluation:
            return {}

    def resume(self, folder: Path) -> None:
        """Go on from the checkpoint in `folder`; after the last step nothing is left to train."""
        state = TrainerState.load_from_json(str(folder / TRAINER_STATE_NAME))
        if state.global_step >= self.args.max_steps:  # the Trainer would train a step more where an epoch is not over
            self._load_from_checkpoint(str(folder))
            self.state = state
        else:
            self.args.eval_on_start = misses_evaluation(state, self.args)
            self.train(resume_from_checkpoint=str(folder))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log what was measured on every step; TRL's entropy and accuracy come from its own loss only."""
        for figures in self._metrics.values():
            figures.clear()
        super().log(logs, start_time)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """The record of a run is its run.json."""


class DryPass(TrainerCallback):  # type: ignore[misc]
    """Does the trainer's dry pass when its model is ready, before the first step."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, *_: Any, model: nn.Module, **__: Any) -> None:
        """Pass the longest rows through."""
        self._trainer.dry_pass(model)
