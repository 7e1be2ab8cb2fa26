"""ZeRO (Rajbhandari et al., 2020, https://arxiv.org/abs/1910.02054) by DeepSpeed.

Stage 1 divides the state of the optimizer among the processes, stage 2 the gradients too, stage 3 also the weights. Nothing is
compiled: the optimizer is torch's, and gloo exchanges what DeepSpeed's own operators would on a CPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tunesmith_api.failures import FailureClass
from tunesmith_api.training import Offload
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.strategies.base import MOMENTS, Strategy

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tunesmith_runtime.train.strategies.sharding import ShardingMixin as Trainer

BUCKET = 20_000_000
"""Numbers of a bucket of gradients. DeepSpeed's default of 5e8 takes 2 GB, also for an adapter."""


class Zero(Strategy):
    """One of the three stages."""

    is_sharded = True
    needs = frozenset({"deepspeed"})
    steps_in_backward = True

    def __init__(self, stage: int) -> None:
        self._stage = stage

    def arguments(self, device: str, bf16: bool, offload: Offload) -> dict[str, Any]:
        """Return DeepSpeed's configuration."""
        build_nothing(device)
        config = {
            "zero_optimization": {
                "stage": self._stage,
                "reduce_bucket_size": BUCKET,
                "allgather_bucket_size": BUCKET,
                "overlap_comm": False,
                **offloaded(offload, device),
            },
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "bf16": {"enabled": bf16},
            "train_micro_batch_size_per_gpu": "auto",
            "gradient_accumulation_steps": "auto",
            "gradient_clipping": "auto",
        }
        if device != "cpu":
            return {"deepspeed": config}
        start_on_cpus()
        accelerator = {"dispatch_batches": False, "use_configured_state": True}
        return {"deepspeed": config, "use_cpu": False, "accelerator_config": accelerator}

    def check(self, trainer: Trainer) -> None:
        """Check that each process holds a part of the optimizer's state, and in stage 3 of each weight. Raises RunFailure (ProcessError)."""
        trained = sum(size_of(weight) for weight in trainer.model.parameters() if weight.requires_grad)
        own = sum(flat.numel() for flat in flats(trainer))
        if own >= trained:
            raise unsharded(f"the optimizer of each process has all {trained} trained weights")
        if self._stage == 3:
            for name, weight in trainer.model.named_parameters():
                if not hasattr(weight, "ds_tensor") or 1 < size_of(weight) <= weight.ds_tensor.numel():
                    raise unsharded(f"{name} is whole in each process")

    def weights(self, trainer: Trainer) -> dict[str, Any]:
        """Return the trained weights and the buffers."""
        keep, named = trainer.args.should_save, dict(trainer.model.named_parameters(remove_duplicate=False))
        state = {name: each for name, each in trainer.model.state_dict().items() if name not in named}
        for name, weight in trainer.model.named_parameters():
            if weight.requires_grad:
                full = master(weight)
                state |= {name: full.cpu()} if keep else {}
        return state

    def optimizer_state(self, trainer: Trainer) -> dict[str, Any]:
        """Return the state dictionary of the optimizer that the Trainer created, with the moments of whole weights."""
        from deepspeed.utils import safe_get_full_optimizer_state

        steps, keep = step_of(trainer), trainer.args.should_save
        link_moments(zero_of(trainer))
        states: dict[int, dict[str, Tensor]] = {}
        for index, weight in enumerate(trainer.optimized):
            moments = {key: safe_get_full_optimizer_state(weight, key) for key in MOMENTS}
            if keep:
                full = {key: value.reshape(shape_of(weight)).cpu() for key, value in moments.items()}
                # a tensor of its own, as a saved file keeps what is shared, and torch's optimizer counts in place
                states[index] = {"step": steps.clone(), **full}
        groups = [dict(group) for group in trainer.optimizer_groups]
        for group, own in in_pairs(groups, zero_of(trainer).param_groups):
            group["lr"] = own["lr"]
        return {"state": states, "param_groups": groups}

    def load_optimizer_state(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Load a state dictionary; its parameters are numbered in the order of the optimizer's groups."""
        import torch

        zero = zero_of(trainer)
        step = next(iter(state["state"].values()))["step"]
        for flat in flats(trainer):
            zeros = {key: torch.zeros_like(flat) for key in MOMENTS}
            zero.optimizer.state[flat] = {"step": step.clone(), **zeros}
        link_moments(zero)
        for index, weight in enumerate(trainer.optimized):
            for key in MOMENTS:
                set_moment(weight, key, state["state"][index][key])
        for saved, own in in_pairs(state["param_groups"], zero.param_groups):
            own["lr"] = saved["lr"]

    @contextmanager
    def whole_weights(self, trainer: Trainer) -> Iterator[None]:
        """Gather the weights that stage 3 divides."""
        from trl.models import unwrap_model_for_generation

        with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator):
            yield

    def make_whole(self, model: nn.Module, keep: bool) -> None:
        """Turn the model into one that is not divided."""
        from torch import nn

        gathered: dict[int, nn.Parameter] = {}
        for module in model.modules():
            for name, weight in list(module.named_parameters(recurse=False)):
                if not hasattr(weight, "ds_id") and not hasattr(weight, "_hp_mapping"):
                    continue
                if id(weight) not in gathered:
                    full = master(weight) if weight.requires_grad else gathered_weight(weight)
                    gathered[id(weight)] = nn.Parameter(full.cpu(), weight.requires_grad)
                if keep:
                    module._parameters[name] = gathered[id(weight)]


def offloaded(offload: Offload, device: str) -> dict[str, Any]:
    """Return DeepSpeed's configuration of the state that stays in the memory of the pod, page-locked for copies to a
    device."""
    place = {"device": "cpu", "pin_memory": device != "cpu"}
    parts = {
        Offload.NONE: (),
        Offload.OPTIMIZER: ("offload_optimizer",),
        Offload.ALL: ("offload_optimizer", "offload_param"),
    }
    return dict.fromkeys(parts[offload], place)


def build_nothing(device: str) -> None:
    """Keep DeepSpeed from compiling operators: a build takes minutes, and a killed build leaves a lock that blocks all
    later builds."""
    os.environ["DS_ACCELERATOR"] = device
    import deepspeed.ops

    deepspeed.ops.__dict__["__compatible_ops__"] = {}


def start_on_cpus() -> None:
    """Make accelerate use DeepSpeed with gloo. By itself it takes a group of CPUs for DistributedDataParallel, or for single processes."""
    from accelerate.state import AcceleratorState, PartialState  # type: ignore[import-untyped]

    AcceleratorState._reset_state(reset_partial_state=True)
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    PartialState(backend="gloo")
    del os.environ["ACCELERATE_USE_DEEPSPEED"]


def unsharded(what: str) -> RunFailure:
    """Return the failure of a model that is not divided."""
    return RunFailure(FailureClass.PROCESS_ERROR, f"strategy zero: {what}, so that nothing is sharded")


def in_pairs(
    groups: list[dict[str, Any]], own: list[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each group of a state dictionary with DeepSpeed's group. DeepSpeed's stage 3 drops groups without weights."""
    kept = groups if len(groups) == len(own) else [group for group in groups if group["params"]]
    yield from zip(kept, own, strict=True)


def zero_of(trainer: Trainer) -> Any:
    """Return DeepSpeed's optimizer, which wraps torch's."""
    return trainer.deepspeed.optimizer


def flats(trainer: Trainer) -> list[Tensor]:
    """Return the master weights of this process, flat, in float32: one tensor for each group of the optimizer, or for a part of it."""
    zero = zero_of(trainer)
    found: list[Tensor] = (
        zero.fp32_partitioned_groups_flat
        if hasattr(zero, "fp32_partitioned_groups_flat")
        else zero.single_partition_of_fp32_groups
    )
    return found


def link_moments(zero: Any) -> None:
    """Let DeepSpeed find the moments of each weight of stages 1 and 2. By default, it looks for them after the step of
    the first group of weights, when the moments of the other groups do not exist yet."""
    if hasattr(zero, "_hp_optimizer_states_linked"):
        zero._hp_optimizer_states_linked = False
        zero._lazy_init_hp_params_optimizer_state()


def step_of(trainer: Trainer) -> Tensor:
    """Return the number of steps that the optimizer has taken, as torch's optimizer counts them."""
    states = zero_of(trainer).optimizer.state.values()
    step: Tensor = next(iter(states))["step"]
    return step.cpu()


def shape_of(weight: Any) -> Any:
    """Return the shape of a whole weight."""
    return getattr(weight, "ds_shape", weight.shape)


def size_of(weight: Any) -> int:
    """Return the numbers of a whole weight."""
    return int(getattr(weight, "ds_numel", weight.numel()))


def master(weight: Any) -> Tensor:
    """Return a trained weight in float32 from the parts of all processes."""
    from deepspeed.utils import safe_get_full_fp32_param

    full: Tensor = safe_get_full_fp32_param(weight)
    return full.reshape(shape_of(weight))


def gathered_weight(weight: Any) -> Tensor:
    """Return a frozen weight; stage 3 divides it too."""
    from deepspeed.runtime.zero import GatheredParameters

    if not hasattr(weight, "ds_id"):
        return weight.data  # type: ignore[no-any-return]
    with GatheredParameters([weight]):
        return weight.data.clone()  # type: ignore[no-any-return]


def set_moment(weight: Any, key: str, value: Tensor) -> None:
    """Set the state `key` of a weight in the optimizer of each process from the state of the whole weight."""
    from deepspeed.utils import (
        safe_get_local_optimizer_state,
        safe_set_full_optimizer_state,
        safe_set_local_optimizer_state,
    )
    from torch.distributed import get_rank
    from torch.nn.functional import pad

    if not hasattr(weight, "ds_id"):
        safe_set_full_optimizer_state(weight, value, key)
        return
    size, rank = safe_get_local_optimizer_state(weight, key).numel(), get_rank()
    numbers = value.flatten()[size * rank : size * (rank + 1)]
    safe_set_local_optimizer_state(
        weight, pad(numbers, (0, size - numbers.numel())), key
    )  # the last part may be padded
