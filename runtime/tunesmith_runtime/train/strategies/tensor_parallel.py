"""Tensor parallelism (Shoeybi et al., 2019, https://arxiv.org/abs/1909.08053) by the plan that transformers has for a model family.

The processes of a tensor group divide the linear layers of attention and MLP: the first ones by outputs, the last one by inputs,
so that a decoder layer exchanges two sums in each pass. Embeddings, norms and the output layer stay whole. The processes of a
group take the same rows; several groups average their gradients.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from tunesmith_runtime.train.strategies.fsdp import base_of
from tunesmith_runtime.train.strategies.same_rows import REPLICAS, SameRows, parts_of

if TYPE_CHECKING:
    from torch import nn

    from tunesmith_runtime.train.strategies.sharding import ShardingMixin as Trainer

DIVISION = "tensor_parallel_division"
"""Attribute of a divided model: its group, and the handles of its hooks."""


class TensorParallel(SameRows):
    """Tensor groups of `group.tensor_parallel` processes of successive ranks."""

    def shard(self, trainer: Trainer) -> None:
        """Divide the layers, and move the slices to the device. Raises RunFailure (BadSpec) for a model whose layers can't be divided."""
        from torch.nn.parallel import DistributedDataParallel

        from tunesmith_runtime.train.strategies.tensor_slices import clip_gradients, divide

        base, slices, replicas = base_of(trainer.model), parts_of(trainer), trainer.mesh[REPLICAS]
        setattr(base, DIVISION, (slices, divide(base, slices)))
        trainer.model.to(trainer.args.device)
        prepare = trainer.accelerator.prepare_model

        def prepare_model(model: nn.Module, **options: Any) -> Any:
            prepared = prepare(
                model, **options | {"evaluation_mode": True}
            )  # accelerate would average over all processes
            return (
                prepared
                if replicas.size() == 1
                else DistributedDataParallel(prepared, process_group=replicas.get_group())
            )

        trainer.accelerator.prepare_model = prepare_model
        trainer.accelerator.clip_grad_norm_ = partial(clip_gradients, group=slices)

    def weights(self, trainer: Trainer) -> dict[str, Any]:
        """Return the trained weights and the buffers; a frozen base is in the store already."""
        from tunesmith_runtime.train.strategies.tensor_slices import dimension_of, whole

        named = dict(trainer.model.named_parameters(remove_duplicate=False))
        state = {
            name: whole(value, dimension_of(named.get(name)), parts_of(trainer))
            for name, value in trainer.model.state_dict().items()
            if name not in named or named[name].requires_grad
        }
        return state if trainer.args.should_save else {}

    def optimizer_state(self, trainer: Trainer) -> dict[str, Any]:
        """Return the state dictionary of the optimizer."""
        from tunesmith_runtime.train.strategies.tensor_slices import whole_of

        return of_each_weight(trainer.optimizer.state_dict(), whole_of, trainer)

    def load_optimizer_state(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Load a state dictionary; its parameters are numbered in the order of the optimizer's groups."""
        from tunesmith_runtime.train.strategies.tensor_slices import part_for

        trainer.optimizer.load_state_dict(of_each_weight(state, part_for, trainer))

    def make_whole(self, model: nn.Module, keep: bool) -> None:
        """Turn the model into one that is not divided."""
        from torch import nn

        from tunesmith_runtime.train.strategies.tensor_slices import dimension_of, whole

        if not hasattr(base_of(model), DIVISION):  # after the last step, when only the weights are loaded
            return
        slices, hooks = getattr(base_of(model), DIVISION)
        for hook in hooks:
            hook.remove()
        for module in model.modules():
            for name, weight in list(module.named_parameters(recurse=False)):
                if (dimension := dimension_of(weight)) is not None:
                    full = whole(weight.data, dimension, slices)
                    if keep:
                        module._parameters[name] = nn.Parameter(full, weight.requires_grad)
        if keep:
            model.to("cpu")


def of_each_weight(state: dict[str, Any], change: Any, trainer: Trainer) -> dict[str, Any]:
    """Return a state dictionary of the optimizer with the values of each weight changed by `change`."""
    values = {
        index: {name: change(value, trainer.optimized[index], parts_of(trainer)) for name, value in of_weight.items()}
        for index, of_weight in state["state"].items()
    }
    return {**state, "state": values}
