"""What a strategy decides: how the processes of a group divide weights and optimizer, and how the parts are put together.

Whatever the strategy, a checkpoint and an artifact have the files of a single process: whole tensors under the names of the
undivided model. So any world, and any strategy, can resume a checkpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from tunesmith_runtime.train.sharding import ShardingMixin as Trainer


class Strategy:
    """Distributed data parallel, or a single process: each process has everything, and nothing is put together.

    All processes of the group must call a method at the same point of the program.
    """

    is_sharded = False
    """Whether a process holds parts of the weights. Then the model is not moved to the device as a whole."""

    needs: frozenset[str] = frozenset()
    """Optional packages that it imports; all others stay hidden (`train.imports`)."""
    steps_in_backward = False
    """Whether a backward pass steps the optimizer, so that there is none without a step."""

    def arguments(self, device: str, bf16: bool) -> dict[str, Any]:
        """Return keyword arguments of transformers.TrainingArguments beside those that all strategies share."""
        return {}

    def shard(self, trainer: Trainer) -> None:
        """Divide the model of `trainer`, which has its initial or resumed weights, before its optimizer is created."""

    def check(self, trainer: Trainer) -> None:
        """Check that each process holds its part alone. Raises RunFailure (ProcessError)."""

    def weights(self, trainer: Trainer) -> dict[str, Any]:
        """Return what a checkpoint needs of the model's state dictionary in whole tensors, to the leader."""
        raise NotImplementedError

    def optimizer_state(self, trainer: Trainer) -> dict[str, Any]:
        """Return the state dictionary of the optimizer in whole tensors, to the leader."""
        raise NotImplementedError

    def load_optimizer_state(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Load a state dictionary of whole tensors, of which each process takes its part."""
        raise NotImplementedError

    def make_whole(self, model: nn.Module, keep: bool) -> None:
        """Replace the parts by whole tensors on the CPU, where `keep` is set, after the last step."""
