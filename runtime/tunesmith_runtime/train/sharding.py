"""What a Trainer does where a strategy divides its model among processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from tunesmith_runtime.train.process_group import ProcessGroup
from tunesmith_runtime.train.strategies import STRATEGIES, Strategy


class ShardingMixin(Trainer):  # type: ignore[misc]
    """Shards the model before the first step, and saves checkpoints as those of a single process."""

    group: ProcessGroup
    optimized: list[nn.Parameter]
    """The trained weights in the order in which a state dictionary of the optimizer numbers them."""
    optimizer_groups: list[dict[str, Any]]
    """The groups of such a state dictionary."""

    @property
    def strategy(self) -> Strategy:
        """The strategy of the group."""
        return STRATEGIES[self.group.strategy]

    def _move_model_to_device(self, model: nn.Module, device: torch.device) -> None:
        """Move the model, unless it is sharded: then only the shards move."""
        if not self.strategy.is_sharded:
            super()._move_model_to_device(model, device)

    def create_optimizer(self, *arguments: Any, **options: Any) -> Any:
        """Keep what the optimizer numbers, before DeepSpeed replaces the weights in its groups by its own."""
        optimizer = super().create_optimizer(*arguments, **options)
        self.optimized = [weight for group in optimizer.param_groups for weight in group["params"]]
        self.optimizer_groups = optimizer.state_dict()["param_groups"]
        return optimizer

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        """Shard the model with the weights of a checkpoint, if there is one, and check that it is sharded."""
        if not self.strategy.is_sharded:
            return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
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
