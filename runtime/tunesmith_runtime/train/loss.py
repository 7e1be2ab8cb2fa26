"""Cross entropy that computes logits only at labelled positions.

With a vocabulary of 49k and answers of a few tokens, the output head over every position costs more than the layers of a
small model. TRL skips unlabelled positions with its Triton kernels only, so this module does it on other devices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tunesmith_runtime.data.examples import IGNORED
from tunesmith_runtime.train.packing import without_mask
from tunesmith_runtime.train.trainer import RunMixin

FUSED_DEVICES = frozenset({"cuda", "xpu"})
"""Devices on which TRL's own loss skips unlabelled positions (trl.kernels.chunked_logprob)."""

LOGITS_BYTES = 1 << 30
"""Above this size of the logits, TRL's loss is used, which never holds them all at once."""


MODEL_INPUTS = ("input_ids", "attention_mask", "position_ids")


class LabelledLoss(RunMixin):
    """Replaces the loss of trl.SFTTrainer: `class SFT(LabelledLoss, SFTTrainer)`."""

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss. It equals TRL's, without logits of unlabelled positions and without metrics over them."""
        inputs = without_mask(inputs)
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        fused = self.args.device.type in FUSED_DEVICES or self.aux_loss_enabled or return_outputs
        # TRL's loss gathers metrics from all processes, so all must use the same loss.
        if fused or self.group.any(not fits(inputs["labels"], head.weight.shape[0]))[0]:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss = answer_loss(model, head, inputs, num_items_in_batch)
        # num_items_in_batch counts the tokens of all processes, and DDP averages their gradients.
        return loss if num_items_in_batch is None else loss * self.group.size

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log what is measured in every step, without entropy and accuracy, which only TRL's loss computes."""
        for values in self._metrics.values():
            values.clear()
        super().log(logs, start_time)

    def _track_num_input_tokens(self, inputs: dict[str, Any]) -> None:
        """Count the tokens of rows, without those of blank rows."""
        rows = (inputs["labels"] != IGNORED).any(dim=1)
        super()._track_num_input_tokens({**inputs, "attention_mask": inputs["attention_mask"][rows]})


@contextmanager
def only_where(head: nn.Module, wanted: Tensor) -> Iterator[None]:
    """Within the block, `head` receives only the hidden states at positions where `wanted` (batch, length - 1) is true.

    The last position predicts nothing and is left out. Logits then have the shape (count, vocabulary); the model still
    applies its own scaling and soft capping to them.
    """
    hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][:, :-1][wanted],))
    try:
        yield
    finally:
        hook.remove()


def fits(labels: Tensor, vocabulary: int) -> bool:
    """Return whether the logits of the labelled positions, as float32, may be held at once."""
    return int((labels[:, 1:] != IGNORED).sum()) * vocabulary * 4 <= LOGITS_BYTES


def answer_loss(
    model: nn.Module, head: nn.Module, inputs: Mapping[str, Tensor], tokens: Tensor | int | None = None
) -> Tensor:
    """Return the mean cross entropy of the labelled tokens, or their sum divided by `tokens` with gradient accumulation.

    `inputs`: labels, which are not shifted, and the inputs of the model: input_ids and attention_mask or position_ids, all
    (batch, length).
    """
    targets = inputs["labels"][:, 1:]
    wanted = targets != IGNORED
    with only_where(head, wanted):
        logits = model(**{name: inputs[name] for name in MODEL_INPUTS if name in inputs}, use_cache=False).logits
    total = cross_entropy(logits.float(), targets[wanted], reduction="sum")
    return total / torch.as_tensor(wanted.sum() if tokens is None else tokens).clamp(min=1)
