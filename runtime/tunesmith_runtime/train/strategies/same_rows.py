"""Base of the strategies that divide one model among several processes, which take the same rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tunesmith_runtime.train.strategies.base import Strategy

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup as Group

    from tunesmith_runtime.train.strategies.sharding import ShardingMixin as Trainer

REPLICAS, PARTS = "dp_replicate", "tp"
"""Dimensions of the mesh of processes, under the names that accelerate uses to divide rows."""
DIFFERENCE = {False: 1e-3, True: 0.1}
"""Greatest mean difference between the logits of several processes and those of one, relative to the mean logit, without and with bfloat16."""


class SameRows(Strategy):
    """Replicas of `group.sharing` processes of successive ranks, each of which has a part of the model."""

    is_sharded = True

    def prepare(self, trainer: Trainer) -> None:
        """Let the processes of a replica read the same rows."""
        from torch.distributed.device_mesh import init_device_mesh

        group, device = trainer.group, trainer.args.device.type
        shape = (group.replicas, group.sharing)
        trainer.mesh = init_device_mesh(device, shape, mesh_dim_names=(REPLICAS, PARTS))
        trainer.accelerator._prepare_device_mesh = lambda: trainer.mesh

    @contextmanager
    def counting_rows_once(self, trainer: Trainer) -> Iterator[None]:
        """Within the block, the Trainer gathers from one process of each replica, as all of them have the same rows."""
        gather, shape = trainer.accelerator.gather, (trainer.group.replicas, trainer.group.sharing, -1)
        trainer.accelerator.gather = lambda value: gather(value).unflatten(0, shape)[:, 0].flatten(0, 1)
        try:
            yield
        finally:
            trainer.accelerator.gather = gather


def parts_of(trainer: Trainer) -> Group:
    """Return the group of the processes that have one model together with this process."""
    return trainer.mesh[PARTS].get_group()  # type: ignore[no-any-return]
