"""Pipeline parallelism (Huang et al., 2018, https://arxiv.org/abs/1811.06965) by torch.distributed.pipelining.

The processes of a pipeline have some decoder layers each, the first one also the embedding, the last one the head. The micro batches
of a step pass from process to process, and their gradients pass back. Several pipelines average their gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from tunesmith_runtime.train.strategies.base import MOMENTS
from tunesmith_runtime.train.strategies.fsdp import base_of
from tunesmith_runtime.train.strategies.same_rows import DIFFERENCE, REPLICAS, SameRows, parts_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tunesmith_runtime.train.strategies.sharding import ShardingMixin as Trainer
    from tunesmith_runtime.train.strategies.stages import Stage

STAGE = "pipeline_stage"
"""Attribute of a divided model: the stage of this process, and the group of its pipeline."""
TOKENS = 16
"""Length of the two compared rows."""


class PipelineParallel(SameRows):
    """Pipelines of `group.pipeline_parallel` processes of successive ranks."""

    is_pipelined = True

    def shard(self, trainer: Trainer) -> None:
        """Keep the stage of this process, and move it to the device.

        Raises RunFailure (BadSpec) for a model that cannot be divided, for stages that compute other logits than the
        whole model, and for a model that mixes packed rows.
        """
        from tunesmith_runtime.train.strategies.pipeline import clip_gradients
        from tunesmith_runtime.train.strategies.stages import Stage

        model, group = trainer.model, parts_of(trainer)
        check_packed_rows(trainer)
        expected = whole_logits(trainer) if group.rank() == group.size() - 1 else None
        stage = Stage(model, group.rank(), group.size())
        stage.autocast = trainer.accelerator.autocast
        setattr(base_of(model), STAGE, (stage, group))
        model.to(trainer.args.device)
        check_logits(trainer, stage, expected)
        # accelerate would wrap the model in DistributedDataParallel, which takes the gradients of a backward pass of its own
        trainer.accelerator.prepare_model = partial(trainer.accelerator.prepare_model, evaluation_mode=True)
        trainer.accelerator.clip_grad_norm_ = partial(clip_gradients, stage=stage, group=group)

    def take_step(self, trainer: Trainer, model: nn.Module, batches: Sequence[Any], tokens: Any) -> Tensor:
        """Pass the micro batches through all stages and back, and combine the gradients."""
        from tunesmith_runtime.train.strategies.pipeline import combine_gradients, pass_through, same_length

        stage, group = getattr(base_of(trainer.model), STAGE)
        model.train()
        loss = pass_through(
            stage,
            same_length(batches),
            lambda batch: trainer.compute_loss(model, batch, num_items_in_batch=tokens),
            group,
        )
        combine_gradients(stage, trainer.model.parameters(), group, trainer.mesh[REPLICAS].get_group())
        return loss

    def validation_loss(self, trainer: Trainer, model: nn.Module, batch: Any) -> Tensor:
        """Return the loss that the last stage computes; that of a whole model, as after the last step, is computed here."""
        from tunesmith_runtime.train.strategies.pipeline import pass_through

        if not hasattr(base_of(trainer.model), STAGE):
            return super().validation_loss(trainer, model, batch)
        stage, group = getattr(base_of(trainer.model), STAGE)
        return pass_through(stage, [batch], lambda each: trainer.compute_loss(model, each), group, backward=False)

    def weights(self, trainer: Trainer) -> dict[str, Any]:
        """Return the trained weights and the buffers; a frozen base is in the store already."""
        stage, group = getattr(base_of(trainer.model), STAGE)
        keep, named = trainer.args.should_save, dict(trainer.model.named_parameters(remove_duplicate=False))
        state = {name: each.cpu() for name, each in trainer.model.state_dict().items() if name not in named}
        for name, weight in named.items():
            if weight.requires_grad:
                state[name] = stage.whole(weight, weight, group, keep)
        return state if keep else {}

    def optimizer_state(self, trainer: Trainer) -> dict[str, Any]:
        """Return the state dictionary of the optimizer, put together from the moments that each process has of its own
        weights."""
        import torch

        stage, group = getattr(base_of(trainer.model), STAGE)
        state, keep = trainer.optimizer.state_dict(), trainer.args.should_save
        step = torch.tensor(float(trainer.state.global_step))
        moments: dict[int, dict[str, Tensor]] = {}
        for index, weight in enumerate(trainer.optimized):
            own = state["state"].get(index, {})
            whole = {key: stage.whole(own.get(key), weight, group, keep) for key in MOMENTS}
            moments[index] = {"step": step.clone(), **whole}
        return {**state, "state": moments}

    def load_optimizer_state(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Load the moments of the own weights; the others are empty."""
        own = {index: each for index, each in state["state"].items() if trainer.optimized[index].numel()}
        trainer.optimizer.load_state_dict({**state, "state": own})

    def make_whole(self, model: nn.Module, keep: bool) -> None:
        """Turn the model into one that is not divided."""
        base = base_of(model)
        if not hasattr(base, STAGE):
            return
        stage, group = getattr(base, STAGE)
        stage.make_whole(group, keep)
        delattr(base, STAGE)
        if keep:
            model.to("cpu")


def check_packed_rows(trainer: Trainer) -> None:
    """Check that the model, which is whole, keeps packed rows apart. Raises RunFailure (BadSpec)."""
    import torch

    from tunesmith_runtime.train.rows.packing import check_separate_rows, two_rows

    if pair := two_rows(trainer.train_dataset):
        with precision(trainer, "cpu"):
            check_separate_rows(trainer.model.eval(), *pair, torch.device("cpu"))


def whole_logits(trainer: Trainer) -> Tensor:
    """Return the logits of two short rows by the model, which is whole."""
    import torch

    with torch.no_grad(), precision(trainer, "cpu"):
        logits: Tensor = trainer.model.eval()(**short_rows(trainer, "cpu"), use_cache=False).logits
    return logits.float()


def check_logits(trainer: Trainer, stage: Stage, expected: Tensor | None) -> None:
    """Compare the logits of all stages with those of the whole model, in the last stage. Raises RunFailure (BadSpec) in all processes."""
    import torch

    from tunesmith_runtime.modelcheck.stages import not_pipelined
    from tunesmith_runtime.train.strategies.pipeline import pass_through

    def difference(rows: Any) -> Tensor:
        assert expected is not None
        with precision(trainer, trainer.args.device.type):
            logits = trainer.model(**rows, use_cache=False).logits.float().cpu()
        return ((logits - expected).abs().mean() / expected.abs().mean()).to(trainer.args.device)

    trainer.model.eval()
    with torch.no_grad():
        rows = short_rows(trainer, trainer.args.device)
        found = float(pass_through(stage, [rows], difference, parts_of(trainer), backward=False))
    if not found <= DIFFERENCE[trainer.args.bf16]:
        name = type(base_of(trainer.model)).__name__
        raise not_pipelined(
            f"the logits of the stages of {name} differ from those of the whole model by {found:.2g} of their mean"
        )


def short_rows(trainer: Trainer, device: Any) -> dict[str, Tensor]:
    """Return a batch of two rows."""
    import torch

    vocabulary = base_of(trainer.model).config.get_text_config().vocab_size
    return {"input_ids": torch.arange(2 * TOKENS, device=device).reshape(2, TOKENS) % vocabulary}


def precision(trainer: Trainer, device: str) -> Any:
    """Within it, a forward pass computes in the number format of the training."""
    import torch

    return torch.autocast(device, torch.bfloat16, enabled=trainer.args.bf16)
