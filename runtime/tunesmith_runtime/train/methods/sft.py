"""Supervised fine-tuning: cross entropy of the answers' tokens, by TRL's SFTTrainer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith_api.training import Method as MethodName
from tunesmith_runtime.data.records import Continuation, Conversation, PlainText
from tunesmith_runtime.train.methods.base import Method, Setup

if TYPE_CHECKING:
    from tunesmith_runtime.train.trainer import RunMixin


def build_trainer(setup: Setup) -> RunMixin:
    """Return TRL's SFTTrainer for rows that are encoded already (columns `input_ids` and `labels`)."""
    from trl import SFTConfig, SFTTrainer

    from tunesmith_runtime.train.loss import LabelledLoss
    from tunesmith_runtime.train.packing import PackedCollator
    from tunesmith_runtime.train.rows import as_dataset, fill_batches

    class Trainer(LabelledLoss, SFTTrainer):  # type: ignore[misc]
        """SFTTrainer with exact resume and a loss that computes logits only where a label is."""

    token = setup.tokenizer.pad_token_id
    rows = fill_batches(setup.train_dataset, token) if setup.group.size > 1 else setup.train_dataset
    arguments = SFTConfig(**setup.arguments, max_length=None, dataset_kwargs={"skip_prepare_dataset": True})
    trainer = Trainer(
        model=setup.model,
        args=arguments,
        train_dataset=as_dataset(rows),  # TRL takes no other type here
        eval_dataset=setup.eval_dataset,
        processing_class=setup.tokenizer,
        callbacks=list(setup.callbacks),
        group=setup.group,
    )
    trainer.train_dataset = rows
    trainer.data_collator = PackedCollator(token, unpacked=trainer.data_collator)
    return trainer


SFT = Method(
    MethodName.SFT, learns_from=frozenset({Conversation, Continuation, PlainText}), build_trainer=build_trainer
)
