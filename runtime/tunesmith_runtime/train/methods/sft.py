"""Supervised fine-tuning: cross entropy of the answers' tokens, by TRL's SFTTrainer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.method_facts import Method as MethodName
from tunesmith_runtime.data.records import (
    Continuation,
    Conversation,
    MultimodalConversation,
    PlainText,
    Record,
    Transcription,
)
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.methods.base import Method, Setup
from tunesmith_runtime.workdir import Work

if TYPE_CHECKING:
    from tunesmith_runtime.train.trainers.base import RunMixin


def build_trainer(setup: Setup) -> RunMixin:
    """Return TRL's SFTTrainer for rows that are encoded already (columns `input_ids`, `labels` and, where answers have them, `weights`).

    Raises RunFailure (BadSpec) for weights with a model whose loss has a term of its routers.
    """
    from trl import SFTConfig, SFTTrainer

    from tunesmith_runtime.train.losses.cross_entropy import LabelledLoss
    from tunesmith_runtime.train.rows.forms import as_dataset, fill_batches, has_weights
    from tunesmith_runtime.train.rows.media_batches import with_media
    from tunesmith_runtime.train.rows.packing import PackedCollator

    class Trainer(LabelledLoss, SFTTrainer):  # type: ignore[misc]
        """SFTTrainer with exact resume and a loss that computes logits only where a label is."""

    token = setup.tokenizer.pad_token_id
    rows = fill_batches(setup.train_dataset, token) if setup.group.size > 1 else setup.train_dataset
    options = {"max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}, "remove_unused_columns": False}
    arguments = SFTConfig(**setup.arguments, **options)
    trainer = Trainer(
        model=setup.model,
        args=arguments,
        train_dataset=as_dataset(rows),  # TRL takes no other type here
        eval_dataset=setup.eval_dataset,
        processing_class=setup.tokenizer,
        callbacks=list(setup.callbacks),
        group=setup.group,
    )
    if trainer.aux_loss_enabled and any(has_weights(each) for each in (rows, setup.eval_dataset) if each is not None):
        raise RunFailure(
            FailureClass.BAD_SPEC,
            "rows have answers of a weight other than 0 and 1, and the loss of this model has a term of its routers beside that of the answers",
            "write weight 0 or 1 in the rows, or remove the key",
        )
    trainer.train_dataset = rows
    trainer.data_collator = with_media(PackedCollator(token, unpacked=trainer.data_collator), setup.media)
    return trainer


def row_check(job: FineTuneJobSpec, _: Work) -> Callable[[Record], None]:
    """Return what raises RowError for a conversation with weights if rows are streamed: each process reads its own, and has to know
    beforehand which loss all take; and for images in rows that are packed or streamed."""

    def check(record: Record) -> None:
        if job.training.streaming and isinstance(record, Conversation) and record.is_scaled:
            raise RowError(
                "has a message of a weight other than 0 and 1, which training.streaming does not support",
                "set spec.training.streaming: false, or write weight 0 or 1",
            )
        if isinstance(record, MultimodalConversation):
            check_images(job)

    return check


def check_images(job: FineTuneJobSpec) -> None:
    """Raise RowError where rows with images are not supported. The API refuses them where it knows the format of the rows."""
    for field in ("packing", "streaming"):
        if getattr(job.training, field):
            raise RowError(
                f"has images, which training.{field} does not support in this version",
                f"set spec.training.{field}: false",
            )


SFT = Method(
    MethodName.SFT,
    learns_from=frozenset({Conversation, Continuation, PlainText, MultimodalConversation, Transcription}),
    build_trainer=build_trainer,
    row_check=row_check,
    scales=True,
)
