"""Micro batches of a step on their way through the stages of a pipeline, by torch.distributed.pipelining.

All processes of a pipeline have the inputs and labels of all rows. They send each other hidden states and the gradients
of these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributed import P2POp, all_reduce, batch_isend_irecv, broadcast, irecv, isend
from torch.distributed import ProcessGroup as Group
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe
from torch.nn.functional import pad
from torch.nn.utils import clip_grads_with_norm_

from tunesmith_runtime.data.examples import IGNORED
from tunesmith_runtime.train.strategies.stages import Stage

Batch = Mapping[str, Tensor]
"""Inputs and labels of a micro batch, each (rows, length)."""


class Passes(nn.Module):
    """The stage of this process as torch's schedules call it: for a micro batch by its number."""

    def __init__(self, stage: Stage, batches: Sequence[Batch], loss: Callable[[Batch], Tensor]) -> None:
        super().__init__()
        self._stage, self._batches, self._loss = stage, batches, loss
        self.total = torch.zeros((), device=batches[0]["input_ids"].device)
        """Sum of the losses, in the last stage."""

    def forward(self, *received: Tensor, number: Tensor) -> Tensor:
        """Return the loss of the micro batch, or the hidden states for the next stage."""
        batch = self._batches[int(number)]
        self._stage.received = received[0] if received else None
        if not self._stage.is_last:
            return self._stage.hidden(batch)
        loss = self._loss(batch)
        self.total += loss.detach()
        return loss


def pass_through(
    stage: Stage, batches: Sequence[Batch], loss: Callable[[Batch], Tensor], group: Group, backward: bool = True
) -> Tensor:
    """Pass micro batches of one shape through all stages, and back for the gradients of the weights; return the sum of the losses.

    `loss`: function of the last stage that computes the loss of a micro batch, as with a whole model. A stage keeps the
    activations of one micro batch for itself and for each later stage (1F1B; Harlap et al., 2018,
    https://arxiv.org/abs/1806.03377). If a step has fewer micro batches than there are stages, all forward passes come
    first (GPipe; Huang et al., 2018, https://arxiv.org/abs/1811.06965).
    """
    passes = Passes(stage, batches, loss)
    kind = Schedule1F1B if backward and len(batches) >= stage.count else ScheduleGPipe
    loss_of_output = (lambda output, _: output) if backward else None
    schedule = kind(torch_stage(passes, stage, batches[0], group), len(batches), loss_of_output, scale_grads=False)
    numbers = torch.arange(len(batches))
    try:
        schedule.step(number=numbers, target=numbers, return_outputs=False)
    except RuntimeError as error:  # torch wraps what a stage raises
        raise error.__cause__ or error from None
    finally:
        stage.received = None
    broadcast(passes.total, group=group, group_src=stage.count - 1)
    return passes.total


def torch_stage(passes: Passes, stage: Stage, batch: Batch, group: Group) -> PipelineStage:
    """Return torch's description of a stage. It has the shapes that are exchanged, as torch would otherwise run the stage to find them."""
    hidden, loss = (
        torch.empty(shape, dtype=dtype, device="meta", requires_grad=True)
        for shape, dtype in (((*batch["input_ids"].shape, stage.hidden_size), stage.dtype), ((), torch.float32))
    )
    return PipelineStage(
        passes,
        stage.index,
        stage.count,
        batch["input_ids"].device,
        input_args=(hidden,) if stage.index else (),
        output_args=loss if stage.is_last else hidden,
        group=group,
    )


def same_length(batches: Sequence[Batch]) -> list[dict[str, Tensor]]:
    """Pad the rows of micro batches to the longest. A position of padding has no label, and no other attends to it."""
    length = max(batch["input_ids"].shape[1] for batch in batches)
    return [
        {
            name: pad(value, (0, length - value.shape[1]), value=IGNORED if name == "labels" else 0)
            for name, value in batch.items()
        }
        for batch in batches
    ]


def combine_gradients(stage: Stage, parameters: Iterable[nn.Parameter], group: Group, replicas: Group) -> None:
    """Add the gradients of a weight that the first and the last stage share, and average the gradients of all replicas."""
    ends = {0: stage.count - 1, stage.count - 1: 0}
    for weight in stage.tied if stage.index in ends else ():
        weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
        weight.grad += exchanged(weight.grad, ends[stage.index], group)
    if replicas.size() > 1:
        for weight in parameters:
            if weight.grad is not None:
                all_reduce(weight.grad, group=replicas)
                weight.grad /= replicas.size()


def exchanged(value: Tensor, peer: int, group: Group) -> Tensor:
    """Send `value` to the process of rank `peer` in the group, and return what that one sends."""
    value, other = value.contiguous(), torch.empty_like(value, memory_format=torch.contiguous_format)
    sends, receives = (P2POp(op, each, group=group, group_peer=peer) for op, each in ((isend, value), (irecv, other)))
    for work in batch_isend_irecv([sends, receives]):
        work.wait()
    return other


def clip_gradients(
    parameters: Iterable[nn.Parameter], max_norm: float, norm_type: float = 2.0, *, stage: Stage, group: Group
) -> Tensor:
    """Scale the gradients so that their norm over all stages is at most `max_norm`, and return the norm before."""
    trained = [weight for weight in parameters if weight.grad is not None]
    square = torch.zeros((), device=stage.device)
    for weight in trained:
        if weight.grad is not None and stage.counts(weight):
            square += weight.grad.float().square().sum()
    all_reduce(square, group=group)
    norm = square.sqrt()
    clip_grads_with_norm_(trained, max_norm, norm)
    return norm
