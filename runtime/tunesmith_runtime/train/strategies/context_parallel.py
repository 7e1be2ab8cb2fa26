"""Context parallelism (Llama Team, 2024, section 3.3.2, https://arxiv.org/abs/2407.21783): processes have a part of the tokens of each row.

Weights are whole in each process, as with distributed data parallel. The processes of a group take the same rows, compute their tokens,
and gather keys and values in each layer (train/strategies/context_attention.py). The gradients of all processes are averaged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith_runtime.train.strategies.fsdp import base_of
from tunesmith_runtime.train.strategies.same_rows import DIFFERENCE, SameRows, parts_of

if TYPE_CHECKING:
    from tunesmith_runtime.train.strategies.sharding import ShardingMixin as Trainer


class ContextParallel(SameRows):
    """Groups of `group.context_parallel` processes of successive ranks."""

    is_sharded = False
    splits_sequences = True

    def check(self, trainer: Trainer) -> None:
        """Compare the logits of two divided rows with those of whole rows. Raises RunFailure (BadSpec)."""
        from tunesmith_runtime.modelcheck.contexts import check_context, not_context_parallel
        from tunesmith_runtime.train.strategies.context_attention import difference, use

        check_context(base_of(trainer.model).config.get_text_config().model_type, trainer.group.context_parallel)
        model = trainer.model.eval()
        use(base_of(model))
        with trainer.accelerator.autocast():
            found = difference(model, base_of(model).config.get_text_config().vocab_size, parts_of(trainer))
        if trainer.group.any(not found <= DIFFERENCE[trainer.args.bf16])[0]:
            name = type(base_of(model)).__name__
            raise not_context_parallel(
                f"the logits of parts of rows by {name} differ from those of whole rows by {found:.2g} of their mean"
            )
