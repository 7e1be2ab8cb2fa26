"""The part of a Trainer that lets a strategy divide its model among processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from tunesmith_runtime.train.optimizers.rates import set_rates
from tunesmith_runtime.train.strategies import Strategy, strategy_in
from tunesmith_runtime.train.world.process_group import ProcessGroup


class ShardingMixin(Trainer):  # type: ignore[misc]
    """Shards the model before the first step, and saves checkpoints with the files of a single process."""

    group: ProcessGroup
    mesh: Any
    """The processes by replicas and by slices of layers, where they share layers."""
    optimized: list[nn.Parameter]
    """The trained weights, in the order of a state dictionary of the optimizer."""
    rate_factor: Callable[[str], float] | None = None
    """Factor of the learning rate by the name of a weight; None: all have the same."""
    optimizer_groups: list[dict[str, Any]]
    """The groups of such a state dictionary."""
    _waiting: list[dict[str, Any]]
    """Micro batches of a step that pass through the stages of a pipeline together."""

    @property
    def strategy(self) -> Strategy:
        """The strategy of the group."""
        return strategy_in(self.group)

    def create_accelerator_and_postprocess(self) -> None:
        """Let the strategy divide the rows."""
        super().create_accelerator_and_postprocess()
        self.strategy.prepare(self)

    def _track_num_input_tokens(self, inputs: dict[str, Any]) -> None:
        """Count each token once."""
        with self.strategy.counting_rows_once(self):
            super()._track_num_input_tokens(inputs)

    def _move_model_to_device(self, model: nn.Module, device: torch.device) -> None:
        """Move the model, unless it is sharded: then only the shards move."""
        if not self.strategy.is_sharded:
            super()._move_model_to_device(model, device)

    def create_optimizer(self, *arguments: Any, **options: Any) -> Any:
        """Create the optimizer. Keep what it numbers, before DeepSpeed replaces the weights in its groups by its own.

        With DeepSpeed, the Trainer calls it a second time, and gets the same optimizer.
        """
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(*arguments, **options)
        if is_new and self.rate_factor is not None:
            set_rates(optimizer, self.model, self.rate_factor)
        self.optimized = [weight for group in optimizer.param_groups for weight in group["params"]]
        self.optimizer_groups = optimizer.state_dict()["param_groups"]
        return optimizer

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Compute the gradients of a micro batch; with a pipeline, compute those of the whole step at its last micro
        batch."""
        if not self.strategy.is_pipelined:
            loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
            return loss
        self._waiting.append(self._prepare_inputs(inputs))
        if not self.accelerator.sync_gradients:
            return torch.zeros((), device=self.args.device)
        batches, self._waiting = self._waiting, []
        return self.strategy.take_step(self, model, batches, num_items_in_batch)

    def measured_loss(self, model: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        """Return the loss of a batch, without gradients, as the strategy computes it."""
        return self.strategy.validation_loss(self, model, batch)

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        """Shard the model with the weights of a checkpoint, if there is one, and check that it is sharded."""
        if not self.strategy.is_sharded:
            prepared = super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
            self.strategy.check(self)
            return prepared
        if resume_from_checkpoint and self.is_deepspeed_enabled:  # otherwise they are loaded already
            self._load_from_checkpoint(resume_from_checkpoint)
        self.strategy.shard(self)
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
        self.strategy.check(self)
        self._load_optimizer_and_scheduler(resume_from_checkpoint)
        return prepared

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save whole weights."""
        if not self.strategy.is_sharded:
            super().save_model(output_dir, _internal_call)
            return
        weights = self.strategy.weights(self)
        if self.args.should_save:
            self._save(output_dir, state_dict=weights)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.strategy.is_sharded:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = self.strategy.optimizer_state(self)
        if self.args.should_save:
            torch.save(state, Path(output_dir) / OPTIMIZER_NAME)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if not self.strategy.is_sharded or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        folder = Path(checkpoint)
        state = torch.load(folder / OPTIMIZER_NAME, map_location="cpu", weights_only=True, mmap=True)
        self.strategy.load_optimizer_state(self, state)
        self.lr_scheduler.load_state_dict(torch.load(folder / SCHEDULER_NAME, weights_only=True))
