"""Cross entropy that computes logits only at labelled positions.

With a vocabulary of 49k and answers of a few tokens, the output head over every position costs more than the layers of a
small model. TRL skips unlabelled positions with its Triton kernels only, so this module does it on other devices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tunesmith_api.kernels import Loss
from tunesmith_runtime.data.examples import IGNORED
from tunesmith_runtime.multimodal.processor import TYPES
from tunesmith_runtime.train.kernels.row_attention import ARGUMENT, NAMES, no_masks, row_lengths
from tunesmith_runtime.train.rows.media_batches import MEDIA
from tunesmith_runtime.train.rows.packing import without_mask
from tunesmith_runtime.train.rows.speech_batches import WRITTEN
from tunesmith_runtime.train.strategies.fsdp import base_of
from tunesmith_runtime.train.strategies.same_rows import parts_of
from tunesmith_runtime.train.trainers.base import RunMixin

FUSED_DEVICES = frozenset({"cuda", "xpu"})
"""Devices on which TRL's own loss skips unlabelled positions (trl.kernels.chunked_logprob)."""

LOGITS_BYTES = 1 << 30
"""Above this size of the logits, TRL's loss is used, which never holds them all at once."""


MODEL_INPUTS = ("input_ids", "attention_mask", "position_ids", ARGUMENT, TYPES)
WEIGHTS = "weights"
"""Factors of the loss of each token in a batch, (batch, length), if a row of the data has some."""


def model_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the model reads of a batch: its tokens, and the features of its media. The tokens of a speech model are those of its
    decoder, which needs no mask for padding at the end."""
    if WRITTEN in (media := inputs.get(MEDIA, {})):
        return dict(media)
    return {**{name: inputs[name] for name in MODEL_INPUTS if name in inputs}, **media}


class LabelledLoss(RunMixin):
    """Replaces the loss of trl.SFTTrainer: `class SFT(LabelledLoss, SFTTrainer)`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Several multimodal classes set False, with which the Trainer weighs micro batches equally, whatever their number of tokens.
        self.model_accepts_loss_kwargs = True

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss. It equals TRL's, without logits of unlabelled positions and without metrics over them."""
        inputs = without_mask(inputs)
        if self.strategy.splits_sequences:
            return self._part_loss(model, inputs, num_items_in_batch)
        if self.kernels.attention not in NAMES or "position_ids" not in inputs:
            return self._loss(model, inputs, return_outputs, num_items_in_batch)
        with no_masks():
            rows = {**inputs, ARGUMENT: row_lengths(inputs["position_ids"])}
            return self._loss(model, rows, return_outputs, num_items_in_batch)

    def _loss(self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool, num_items_in_batch: Any) -> Any:
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        is_plain = self.kernels.loss is Loss.ALL
        # TRL's loss gathers metrics from all processes, so all must use the same loss. With a pipeline, the last ones alone have one.
        # It has no factors and no media; rows of all processes have them, or none.
        is_own = is_plain or self.strategy.is_pipelined or WEIGHTS in inputs or MEDIA in inputs
        fused = self.args.device.type in FUSED_DEVICES and not is_own
        if fused or self.aux_loss_enabled or return_outputs or not (is_own or self._fits(inputs["labels"], head)):
            inputs = {**inputs, **inputs.pop(MEDIA, {})}
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss = (plain_loss if is_plain else partial(answer_loss, head=head))(
            model, inputs=inputs, tokens=num_items_in_batch
        )
        # num_items_in_batch counts the tokens of all processes, and DDP averages their gradients.
        return loss if num_items_in_batch is None else loss * self.group.size

    def _part_loss(self, model: nn.Module, inputs: dict[str, Any], tokens: Any) -> Tensor:
        from tunesmith_runtime.train.strategies.context_attention import part_loss, use

        bare = self.accelerator.unwrap_model(model)
        use(base_of(bare))
        loss = part_loss(model, bare.get_output_embeddings(), inputs, parts_of(self), tokens)
        return loss if tokens is None else loss * self.group.size

    def _fits(self, labels: Tensor, head: Any) -> bool:
        """Return whether the logits of the labelled positions may be held at once, in all processes."""
        return not self.group.any(not fits(labels, head.weight.shape[0]))[0]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the metrics of every step, without entropy and accuracy, which only TRL's loss computes."""
        for values in self._metrics.values():
            values.clear()
        super().log(logs, start_time)

    def _track_num_input_tokens(self, inputs: dict[str, Any]) -> None:
        """Count the tokens of rows, without those of blank rows."""
        rows = (inputs["labels"] != IGNORED).any(dim=1)
        media = inputs.get(MEDIA, {})  # the Trainer looks for the main input of a speech model, its features
        super()._track_num_input_tokens({**inputs, **media, "attention_mask": inputs["attention_mask"][rows]})


@contextmanager
def only_where(head: nn.Module, wanted: Tensor, length: int | None = None) -> Iterator[None]:
    """Within the block, `head` receives only the hidden states at positions where `wanted` (batch, length, or without
    the last positions) is true. `length` is the length of the rows without virtual tokens, which the model may compute
    before them.

    Logits then have the shape (count, vocabulary); the model still
    applies its own scaling and soft capping to them.
    """
    hook = head.register_forward_pre_hook(lambda _, inputs: (before_next(inputs[0], wanted, length),))
    try:
        yield
    finally:
        hook.remove()


def before_next(states: Tensor, wanted: Tensor, length: int | None = None) -> Tensor:
    """Return the states (count, size) of the positions that are `wanted` (batch, length, or without the last positions) of those (batch,
    positions, size) of rows of `length` tokens, behind virtual tokens if there are more positions."""
    behind = 0 if length is None else states.shape[1] - length
    return states[:, behind : behind + wanted.shape[1]][wanted]


def virtual_tokens(model: Any) -> int:
    """Return how many trained embeddings the model computes before each row."""
    inner = getattr(model, "module", model)
    is_behind = isinstance(inner, PeftModel) and inner.active_peft_config.is_prompt_learning
    return int(inner.active_peft_config.num_virtual_tokens) if is_behind else 0


def fits(labels: Tensor, vocabulary: int) -> bool:
    """Return whether the logits of the labelled positions, as float32, may be held at once."""
    return int((labels[:, 1:] != IGNORED).sum()) * vocabulary * 4 <= LOGITS_BYTES


def answer_loss(
    model: nn.Module, head: nn.Module, inputs: Mapping[str, Tensor], tokens: Tensor | int | None = None
) -> Tensor:
    """Return the mean cross entropy of the labelled tokens, or their sum divided by `tokens` with gradient accumulation.

    `inputs`: labels, which are not shifted, and the inputs of the model: input_ids and attention_mask or position_ids, all
    (batch, length). With `weights`, of the same shape, the loss of each token is multiplied by its weight, and the divisor stays the
    number of tokens, as in ms-swift.
    """
    targets = inputs["labels"][:, 1:]
    wanted = targets != IGNORED
    with only_where(head, wanted, inputs["labels"].shape[1]):
        logits = model(**model_inputs(inputs), use_cache=False).logits
    weights = inputs[WEIGHTS][:, 1:][wanted] if WEIGHTS in inputs else None
    total = total_loss(logits, targets[wanted], weights)
    return total / torch.as_tensor(wanted.sum() if tokens is None else tokens).clamp(min=1)


def total_loss(logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    """Return the sum of the cross entropies of tokens, each times its weight. A target IGNORED counts nothing."""
    if weights is None:
        return cross_entropy(logits.float(), targets, ignore_index=IGNORED, reduction="sum")
    return (cross_entropy(logits.float(), targets, ignore_index=IGNORED, reduction="none") * weights).sum()


def plain_loss(model: nn.Module, inputs: Mapping[str, Tensor], tokens: Tensor | int | None = None) -> Tensor:
    """Return the same as `answer_loss`, from the logits of all positions: the formula, to compare fast paths with."""
    targets = inputs["labels"][:, 1:]
    logits = model(**model_inputs(inputs), use_cache=False).logits
    start = logits.shape[1] - inputs["labels"].shape[1]  # behind virtual tokens
    before = logits[:, start : start + targets.shape[1]]
    weights = inputs[WEIGHTS][:, 1:].flatten() if WEIGHTS in inputs else None
    total = total_loss(before.flatten(0, 1), targets.flatten(), weights)
    return total / torch.as_tensor((targets != IGNORED).sum() if tokens is None else tokens).clamp(min=1)
