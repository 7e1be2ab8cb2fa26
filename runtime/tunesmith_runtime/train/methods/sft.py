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

    from tunesmith_runtime.train.batches import append_blank
    from tunesmith_runtime.train.loss import LabelledLoss

    class Trainer(LabelledLoss, SFTTrainer):  # type: ignore[misc]
        """SFTTrainer with exact resume and a loss that computes logits only where a label is."""

    rows, token = setup.train_dataset, setup.tokenizer.pad_token_id
    arguments = SFTConfig(**setup.arguments, max_length=None, dataset_kwargs={"skip_prepare_dataset": True})
    return Trainer(
        model=setup.model,
        args=arguments,
        train_dataset=append_blank(rows, token) if setup.group.size > 1 else rows,
        eval_dataset=setup.eval_dataset,
        processing_class=setup.tokenizer,
        callbacks=list(setup.callbacks),
        group=setup.group,
    )


SFT = Method(
    MethodName.SFT, learns_from=frozenset({Conversation, Continuation, PlainText}), build_trainer=build_trainer
)
