"""The interface of a strategy: how the processes of a group divide weights and optimizer, and how they put the parts
together.

Whatever the strategy, a checkpoint and an artifact have the files of a single process: whole tensors under the names of the
undivided model. So any world, and any strategy, can resume a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tunesmith_api.training import Offload

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tunesmith_runtime.train.strategies.sharding import ShardingMixin as Trainer

MOMENTS = ("exp_avg", "exp_avg_sq")
"""The state of AdamW for each weight."""


class Strategy:
    """Distributed data parallel, or a single process: each process has everything, and nothing is put together.

    All processes of the group must call a method at the same point of the program.
    """

    is_sharded = False
    """Whether a process holds parts of the weights. Then the model is not moved to the device as a whole."""

    needs: frozenset[str] = frozenset()
    """Optional packages that it imports; all others stay hidden (`train.imports`)."""
    steps_in_backward = False
    """Whether each backward pass also steps the optimizer."""
    is_pipelined = False
    """Whether the micro batches of a step pass through the model together, from process to process."""
    splits_sequences = False
    """Whether each process has whole weights and computes a part of the tokens of each row."""

    def arguments(self, device: str, bf16: bool, offload: Offload) -> dict[str, Any]:
        """Return keyword arguments of transformers.TrainingArguments beside those that all strategies share."""
        return {}

    def prepare(self, trainer: Trainer) -> None:
        """Change how `trainer` divides rows among processes, before it reads any."""

    def shard(self, trainer: Trainer) -> None:
        """Divide the model of `trainer`, which has its initial or resumed weights, before its optimizer is created."""

    def check(self, trainer: Trainer) -> None:
        """Check that each process holds only its part. Raises RunFailure (ProcessError)."""

    def take_step(self, trainer: Trainer, model: nn.Module, batches: Sequence[Any], tokens: Any) -> Tensor:
        """Compute the gradients of a step from all its micro batches; return its loss. `tokens`: their number in all
        processes."""
        raise NotImplementedError

    def validation_loss(self, trainer: Trainer, model: nn.Module, batch: Any) -> Tensor:
        """Return the loss of a batch, without gradients; with a pipeline, the one that the last stage computes."""
        loss: Tensor = trainer.compute_loss(model, batch)
        return loss

    def weights(self, trainer: Trainer) -> dict[str, Any]:
        """Return to the leader the whole tensors of the model's state dictionary that a checkpoint needs."""
        raise NotImplementedError

    def optimizer_state(self, trainer: Trainer) -> dict[str, Any]:
        """Return the state dictionary of the optimizer in whole tensors, to the leader."""
        raise NotImplementedError

    def load_optimizer_state(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Load a state dictionary of whole tensors. Each process takes its part."""
        raise NotImplementedError

    @contextmanager
    def counting_rows_once(self, trainer: Trainer) -> Iterator[None]:
        """Within the block, what `trainer` gathers counts each row once."""
        yield

    @contextmanager
    def whole_weights(self, trainer: Trainer) -> Iterator[None]:
        """Within the block, each process has whole weights, so that processes can pass different numbers of rows
        through the model."""
        yield

    def make_whole(self, model: nn.Module, keep: bool) -> None:
        """Replace the parts by whole tensors on the CPU, where `keep` is set, after the last step."""
