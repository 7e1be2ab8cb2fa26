"""Fully sharded data parallel (Zhao et al., 2023, https://arxiv.org/abs/2304.11277) by torch's `fully_shard` (FSDP2).

Each process holds a slice of every weight, its gradient and its optimizer state. The weights of a decoder layer are
gathered while it computes; the weights of embedding, last norm and head are gathered throughout a pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from tunesmith_api.failures import FailureClass
from tunesmith_api.training import Offload
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.strategies.base import Strategy

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tunesmith_runtime.train.strategies.sharding import ShardingMixin as Trainer


class Fsdp(Strategy):
    """FSDP2 over all processes of the group."""

    is_sharded = True

    def shard(self, trainer: Trainer) -> None:
        """Divide each decoder layer, then the remaining weights. Buffers stay whole."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

        model, device = base_of(trainer.model), trainer.args.device.type
        mesh = init_device_mesh(device, (trainer.args.world_size,))
        is_offloaded = trainer.group.offload is Offload.ALL
        policy = CPUOffloadPolicy(pin_memory=device != "cpu") if is_offloaded else OffloadPolicy()
        for part in (*decoder_layers(model), model):
            fully_shard(part, mesh=mesh, offload_policy=policy)
        # accelerate would wrap the model in DistributedDataParallel, which divides nothing.
        trainer.accelerator.prepare_model = partial(trainer.accelerator.prepare_model, evaluation_mode=True)

    def check(self, trainer: Trainer) -> None:
        """Check that every weight is a slice. Raises RunFailure (ProcessError)."""
        from torch.distributed.tensor import DTensor, Shard

        for name, weight in trainer.model_wrapped.named_parameters():
            is_slice = isinstance(weight, DTensor) and any(isinstance(each, Shard) for each in weight.placements)
            if not is_slice:
                raise RunFailure(
                    FailureClass.PROCESS_ERROR,
                    f"strategy fsdp: {name} is whole in each process, so that the model is not sharded",
                    "set spec.parallelism.strategy: ddp, which needs more memory, and report this model",
                )

    def weights(self, trainer: Trainer) -> dict[str, Any]:
        """Return the trained weights and the buffers; a frozen base is in the store already."""
        from torch.distributed.tensor import DTensor

        state, keep = trainer.model.state_dict(keep_vars=True), trainer.args.should_save
        wanted = {name: each for name, each in state.items() if each.requires_grad or not isinstance(each, DTensor)}
        gathered = whole(wanted, keep)
        return gathered if keep else {}

    def optimizer_state(self, trainer: Trainer) -> dict[str, Any]:
        """Return the state dictionary of the optimizer."""
        state: dict[str, Any] = whole(trainer.optimizer.state_dict(), trainer.args.should_save)
        return state

    def load_optimizer_state(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Load a state dictionary; its parameters are numbered in the order of the optimizer's groups."""
        parts = {
            index: {name: part_of(value, trainer.optimized[index]) for name, value in values.items()}
            for index, values in state["state"].items()
        }
        trainer.optimizer.load_state_dict({**state, "state": parts})

    @contextmanager
    def whole_weights(self, trainer: Trainer) -> Iterator[None]:
        """Gather the weights of all layers, and keep them until the end of the block."""
        from torch.distributed.fsdp import FSDPModule

        root, *layers = [each for each in trainer.model.modules() if isinstance(each, FSDPModule)]
        root.set_reshard_after_forward(False)
        for part in (root, *layers):
            part.unshard()
        try:
            yield
        finally:
            for part in (root, *layers):
                part.reshard()
            for layer in layers:
                layer.set_reshard_after_forward(True)

    def make_whole(self, model: nn.Module, keep: bool) -> None:
        """Turn the model into one that is not sharded."""
        from torch import nn
        from torch.distributed.fsdp import FSDPModule
        from torch.distributed.tensor import DTensor

        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()
                classes: list[Any] = [base for base in type(module).__mro__ if not issubclass(base, FSDPModule)]
                module.__class__ = classes[0]
        gathered: dict[int, nn.Parameter] = {}
        for module in model.modules():
            for name, weight in module.named_parameters(recurse=False):
                if not isinstance(weight, DTensor):
                    continue
                if id(weight) not in gathered:  # tied weights stay tied
                    gathered[id(weight)] = nn.Parameter(whole(weight, keep), weight.requires_grad)
                if keep:
                    module.register_parameter(name, gathered[id(weight)])
                    module._load_state_dict_post_hooks.clear()  # FSDP's own, which expect shards


def give_back(model: nn.Module) -> None:
    """Drop the whole weights that a pass has gathered and kept, such as those of the head, so that the next pass gathers them again."""
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def base_of(model: Any) -> Any:
    """Return the model of transformers below an adapter."""
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model


def decoder_layers(model: Any) -> list[nn.Module]:
    """Return the layers that transformers names as those not to be split, without layers within them."""
    names = set(model._no_split_modules or ())
    return [each for each in model.modules() if type(each).__name__ in names]


def whole(value: Any, keep: bool) -> Any:
    """Return `value`, a tensor or a tree of dictionaries and lists, with whole tensors on the CPU for slices.

    All processes take part in gathering; tensors are left empty unless `keep`. A tensor that occurs twice is gathered once.
    """
    from torch.distributed.tensor import DTensor
    from torch.utils._pytree import tree_map

    gathered: dict[int, Tensor] = {}

    def gather(leaf: Any) -> Any:
        if not isinstance(leaf, DTensor):
            return leaf
        if id(leaf) not in gathered:
            full: Tensor = leaf.full_tensor().detach()
            gathered[id(leaf)] = full.cpu() if keep else full.new_empty(0, device="cpu")
        return gathered[id(leaf)]

    return tree_map(gather, value)


def part_of(value: Any, weight: Any) -> Any:
    """Return the slice of an optimizer's value that belongs to the slice `weight`; other values, such as a count, as they are."""
    from torch import Tensor
    from torch.distributed.tensor import distribute_tensor

    if not isinstance(value, Tensor) or value.shape != weight.shape:
        return value
    return distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements, src_data_rank=None)
