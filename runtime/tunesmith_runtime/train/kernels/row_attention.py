"""Attention of rows one by one, without a mask: for sequences of packed rows, and for rows that are padded at their end.

A mask over a packed sequence costs the square of its length, although a token attends only to its own row. Here the
lengths of the rows reach attention as an argument of the model, which passes it to its layers. A call without it, such
as one that generates text, is left to transformers' sdpa.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from itertools import takewhile
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from tunesmith_api.kernels import Attention

NAMES = {Attention.ROWS: "tunesmith_rows", Attention.VARLEN: "tunesmith_varlen"}
"""Names of these implementations of attention in transformers."""
ARGUMENT = "row_lengths"
"""Argument of a model: the lengths of the rows of its batch."""

RowLengths: TypeAlias = list[list[int]]
"""Tokens of each row of each sequence of a batch, in their order; those of a sequence add up to its length."""

_has_rows: ContextVar[bool] = ContextVar("has_rows", default=False)


def row_lengths(position_ids: Tensor) -> RowLengths:
    """Return the rows of packed sequences, (sequences, length), by position ids that restart at each row.

    Tokens of padding, at the end of a sequence, are returned as a single row.
    """
    return [_lengths(positions) for positions in position_ids.tolist()]


def _lengths(positions: list[int]) -> list[int]:
    starts = [at for at, position in enumerate(positions) if position == 0]
    lengths = [end - start for start, end in zip(starts, [*starts[1:], len(positions)], strict=True)]
    padding = sum(takewhile(lambda length: length == 1, reversed(lengths)))  # each has position 0
    return [*lengths[: len(lengths) - padding], *([padding] if padding else [])]


@contextmanager
def no_masks() -> Iterator[None]:
    """Within the block, models with this attention make no masks: the lengths of rows take their place."""
    token = _has_rows.set(True)
    try:
        yield
    finally:
        _has_rows.reset(token)


def mask_or_none(*arguments: Any, **options: Any) -> Tensor | None:
    """Return the mask of sdpa; none within `no_masks`."""
    return None if _has_rows.get() else sdpa_mask(*arguments, **options)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    implementation: Any,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    row_lengths: RowLengths | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Return attention as transformers' `sdpa_attention_forward` does: of (sequences, heads, length, size) as (sequences, length,
    heads, size)."""
    if row_lengths is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    return implementation(query, key, value, row_lengths, dropout, scaling, sliding_window), None


def by_rows(
    query: Tensor, key: Tensor, value: Tensor, rows: RowLengths, dropout: float, scale: float | None, window: int | None
) -> Tensor:
    """Return causal attention of each row on its own; rows of one length in sequences of one row are computed together."""
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    if all(len(lengths) == 1 for lengths in rows):
        return last_queries(query, key, value, dropout, scale, window).transpose(1, 2)
    sequences = []
    for at, lengths in enumerate(rows):
        parts = zip(*(each[at : at + 1].split(lengths, dim=2) for each in (query, key, value)), strict=True)
        sequences.append(torch.cat([last_queries(q, k, v, dropout, scale, window) for q, k, v in parts], dim=2))
    return torch.cat(sequences).transpose(1, 2)


def last_queries(
    query: Tensor, key: Tensor, value: Tensor, dropout: float, scale: float | None, window: int | None
) -> Tensor:
    """Return causal attention of the last tokens of a row. A token attends to at most `window` tokens, itself included."""
    queries, keys = query.shape[2], key.shape[2]
    if window is None or window >= keys:
        if queries == keys:
            return scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True, scale=scale)
        mask: Any = causal_lower_right(queries, keys)
    else:
        places = torch.arange(keys, device=query.device)
        distance = places[keys - queries :, None] - places
        mask = (distance >= 0) & (distance < window)
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scale)


def by_varlen(
    query: Tensor, key: Tensor, value: Tensor, rows: RowLengths, dropout: float, scale: float | None, window: int | None
) -> Tensor:
    """Return causal attention of all rows in one call of FlashAttention (Dao, 2023). It has no dropout."""
    from torch.nn.attention.varlen import varlen_attn

    flat = [length for lengths in rows for length in lengths]
    ends = torch.tensor([0, *flat], dtype=torch.int32, device=query.device).cumsum(0, dtype=torch.int32)
    groups = query.shape[1] // key.shape[1]
    query, key, value = (
        each.transpose(1, 2).flatten(0, 1) for each in (query, repeat_kv(key, groups), repeat_kv(value, groups))
    )
    left = -1 if window is None else window - 1
    attended = varlen_attn(query, key, value, ends, ends, max(flat), max(flat), scale=scale, window_size=(left, 0))
    assert isinstance(attended, Tensor)
    return attended.unflatten(0, (len(rows), -1))


def register(rows: Any = by_rows, varlen: Any = by_varlen) -> None:
    """Register both implementations with transformers."""
    for name, implementation in ((Attention.ROWS, rows), (Attention.VARLEN, varlen)):
        AttentionInterface.register(NAMES[name], partial(_attention, implementation=implementation))
        AttentionMaskInterface.register(NAMES[name], mask_or_none)
