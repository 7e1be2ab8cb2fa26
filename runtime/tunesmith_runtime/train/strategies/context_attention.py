"""Parts of rows: each process of a group has some tokens of every row, and their queries attend to keys of the whole row.

The processes gather the keys and values of all tokens in each layer. A process has two blocks of a row, one of its first half and
one of its second half, so that all attend to equally many tokens (Llama Team, 2024, section 3.3.2, https://arxiv.org/abs/2407.21783).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup as Group
from torch.distributed import all_gather
from torch.nn.functional import pad
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

from tunesmith_runtime.data.examples import IGNORED
from tunesmith_runtime.train.kernels.choice import logits_of
from tunesmith_runtime.train.kernels.row_attention import RowLengths, last_queries, mask_or_none, no_masks, row_lengths
from tunesmith_runtime.train.losses.cross_entropy import WEIGHTS, only_where, total_loss
from tunesmith_runtime.train.strategies.tensor_slices import summed

NAME = "tunesmith_context"
"""Name of this implementation of attention in transformers."""
ARGUMENT = "context_layout"
"""Argument of a model: the layout of its batch."""
SHORT = 8
"""Tokens of each process's part of the compared rows."""


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a batch are."""

    group: Group
    rows: RowLengths
    """Tokens of each row of each sequence; they add up to a multiple of twice the processes."""

    @property
    def block(self) -> int:
        """Tokens of a block."""
        return sum(self.rows[0]) // (2 * self.group.size())

    @property
    def starts(self) -> tuple[int, int]:
        """The first tokens of the two blocks of this process."""
        return self.group.rank() * self.block, (2 * self.group.size() - 1 - self.group.rank()) * self.block

    def own(self, value: Tensor, dimension: int = 1) -> Tensor:
        """Return the tokens of this process."""
        return torch.cat([value.narrow(dimension, start, self.block) for start in self.starts], dimension)

    def in_order(self, parts: list[Tensor], dimension: int) -> Tensor:
        """Return all tokens, gathered from the processes."""
        blocks = [part.chunk(2, dimension) for part in parts]
        return torch.cat([*(first for first, _ in blocks), *(second for _, second in reversed(blocks))], dimension)


class GatheredTokens(torch.autograd.Function):
    """Gathers the keys or values of all tokens, (sequences, heads, length, size), from the processes."""

    @staticmethod
    def forward(context: Any, value: Tensor, layout: Layout) -> Tensor:
        """Gather."""
        context.layout, value = layout, value.contiguous()
        parts = [torch.empty_like(value) for _ in range(layout.group.size())]
        all_gather(parts, value, group=layout.group)
        return layout.in_order(parts, 2)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        """Add the gradients of all queries."""
        return context.layout.own(summed(gradient, context.layout.group), 2), None


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    context_layout: Layout | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Return attention as transformers' `sdpa_attention_forward` does; without a layout, of whole rows."""
    if context_layout is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    groups = query.shape[1] // key.shape[1]
    query, key = query.to(value.dtype), key.to(value.dtype)  # as autocast does where the mask is a plain tensor
    key, value = (repeat_kv(GatheredTokens.apply(each, context_layout), groups) for each in (key, value))
    blocks = zip(context_layout.starts, query.chunk(2, dim=2), strict=True)
    attended = [
        of_block(block, start, key, value, context_layout.rows, dropout, scaling, sliding_window)
        for start, block in blocks
    ]
    return torch.cat(attended, dim=2).transpose(1, 2), None


def of_block(
    query: Tensor,
    start: int,
    key: Tensor,
    value: Tensor,
    rows: RowLengths,
    dropout: float,
    scale: float | None,
    window: int | None,
) -> Tensor:
    """Return causal attention of the queries of successive tokens from `start`, each within its row."""
    end = start + query.shape[2]
    if all(len(lengths) == 1 for lengths in rows):
        return last_queries(query, key[:, :, :end], value[:, :, :end], dropout, scale, window)
    sequences = []
    for at, lengths in enumerate(rows):
        parts = []
        for first, last in spans(lengths):
            low, high = max(first, start), min(last, end)
            if low < high:
                own = query[at : at + 1, :, low - start : high - start]
                seen = slice(at, at + 1), slice(None), slice(first, high)
                parts.append(last_queries(own, key[seen], value[seen], dropout, scale, window))
        sequences.append(torch.cat(parts, dim=2))
    return torch.cat(sequences)


def spans(lengths: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the first token of each row, and that behind its last."""
    end = 0
    for length in lengths:
        yield end, end + length
        end += length


def part_of(inputs: Mapping[str, Tensor], group: Group) -> tuple[dict[str, Any], Tensor]:
    """Return the inputs of the model for the tokens of this process, and their targets, (rows, tokens).

    `inputs`: input_ids, labels, which are not shifted, and for packed sequences position_ids, all (rows, length).
    """
    ids, labels = inputs["input_ids"], inputs["labels"]
    filling = -ids.shape[1] % (2 * group.size())
    targets = pad(labels[:, 1:], (0, filling + 1), value=IGNORED)
    if "position_ids" in inputs:
        positions = pad(inputs["position_ids"], (0, filling))
        layout = Layout(group, row_lengths(positions))
    else:
        positions = torch.arange(targets.shape[1], device=ids.device).expand_as(targets)
        layout = Layout(group, [[targets.shape[1]]] * len(ids))
    own = {"input_ids": layout.own(pad(ids, (0, filling))), "position_ids": layout.own(positions)}
    return {**own, ARGUMENT: layout}, layout.own(targets)


def own_weights(weights: Tensor, layout: Layout) -> Tensor:
    """Return the factors of the loss, (rows, length), for the targets of this process."""
    tokens = 2 * layout.group.size() * layout.block
    return layout.own(pad(weights[:, 1:], (0, tokens + 1 - weights.shape[1])))


def use(model: Any) -> None:
    """Let a model of transformers attend in this way where it receives a layout, and as before elsewhere."""
    if model.config._attn_implementation != NAME:
        AttentionInterface.register(NAME, attention)
        AttentionMaskInterface.register(NAME, mask_or_none)
        model.set_attn_implementation(NAME)


def part_loss(
    model: nn.Module, head: nn.Module, inputs: Mapping[str, Tensor], group: Group, tokens: Tensor | int | None = None
) -> Tensor:
    """Return the summed cross entropy of the labelled tokens of this process, divided by their number in all processes:
    in the batch, or `tokens`, for which each process of the group has counted the whole row. Without gradients, return
    the loss of all processes.
    """
    own, targets = part_of(inputs, group)
    wanted = targets != IGNORED
    with no_masks(), only_where(head, wanted):
        logits = model(**own, use_cache=False).logits
    weights = own_weights(inputs[WEIGHTS], own[ARGUMENT])[wanted] if WEIGHTS in inputs else None
    total = total_loss(logits, targets[wanted], weights)
    count = summed(wanted.sum(), group) if tokens is None else torch.as_tensor(tokens) / group.size()
    return (total if torch.is_grad_enabled() else summed(total, group)) / count.clamp(min=1)


@torch.no_grad()
def difference(model: Any, vocabulary: int, group: Group) -> float:
    """Return the mean difference between the logits of divided rows and of whole rows, relative to the mean logit."""
    length = SHORT * 2 * group.size()
    ids = torch.arange(2 * length, device=next(model.parameters()).device).reshape(2, length) % vocabulary
    own, _ = part_of({"input_ids": ids, "labels": ids}, group)
    expected = own[ARGUMENT].own(logits_of(model, {"input_ids": ids}))
    with no_masks():
        found = logits_of(model, own)
    return float((found - expected).abs().mean() / expected.abs().mean())
