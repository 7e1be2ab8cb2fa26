"""Allocation of ranks between the layers of tuner adalora, after each step of the optimizer, exact in a resumed run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

STATE_FILE = "rank_allocation.pt"
"""The importance of each weight and the singular values that are zero, in a checkpoint."""
IMPORTANCE = ("ipt", "exp_avg_ipt", "exp_avg_unc")
"""Attributes of PEFT's allocator: name of a weight -> its importance (equations 8 to 10 of the paper)."""


class RankAllocation(TrainerCallback):  # type: ignore[misc]
    """Keeps the most important singular values of all layers, as many as the schedule allows, and sets the others to zero.

    PEFT's model adds the regularization of the singular vectors (equation 4) to a loss that it computes itself. The
    methods of this package compute the loss themselves, so the gradient of the regularization is added here, before
    each step, to the clipped gradient of the data.
    """

    def __init__(self, model: PeftModel, resumed: Path | None) -> None:
        """`resumed`: the checkpoint that the run resumes from."""
        self._model = model.base_model
        self._config = model.peft_config["default"]
        self._allocator = self._model.rankallocator
        self._allocator.set_total_step(self._config.total_step)
        self._allocator.reset_ipt()
        self._kept: dict[str, Any] | None = None
        if resumed is not None:
            state = torch.load(resumed / STATE_FILE, weights_only=True)
            self._kept = state.pop("kept")
            vars(self._allocator).update(state)

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Add the gradient of the regularization."""
        vectors = [
            weight for name, weight in self._model.named_parameters() if ".lora_A." in name or ".lora_B." in name
        ]
        with torch.enable_grad():
            loss = self._config.orth_reg_weight * sum(map(distance_to_orthogonal, vectors)) / len(vectors)
            gradients = torch.autograd.grad(loss, vectors)
        for weight, gradient in zip(vectors, gradients, strict=True):
            weight.grad = gradient if weight.grad is None else weight.grad + gradient

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Update the importance by the gradients of the step, and set singular values to zero when they are due."""
        step, last = state.global_step + 1, self._config.total_step - self._config.tfinal
        if step <= last:
            _, kept = self._allocator.update_and_allocate(self._model, step, force_mask=step == last)
            self._kept = kept or self._kept
        elif self._kept is not None:
            self._allocator.mask_using_rank_pattern(self._model, self._kept)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save the allocation with the state of the Trainer."""
        folder = Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        if state.is_world_process_zero:
            importance = {name: getattr(self._allocator, name) for name in IMPORTANCE}
            torch.save({**importance, "kept": self._kept}, folder / STATE_FILE)


def distance_to_orthogonal(vectors: nn.Parameter) -> Tensor:
    """Return the Frobenius norm of V V' - I, V being the vectors as rows; A has them as rows, and B as columns."""
    rows = vectors if vectors.shape[0] <= vectors.shape[1] else vectors.T
    return torch.linalg.matrix_norm(rows @ rows.T - torch.eye(len(rows), device=rows.device, dtype=rows.dtype))
