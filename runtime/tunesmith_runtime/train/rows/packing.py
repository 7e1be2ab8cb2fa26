"""Batches of packed sequences, and the check that no row of a sequence attends to another.

A sequence is passed with position ids that restart at each row and without attention mask or cache: transformers then
restricts attention to the row (masking_utils.find_packed_sequence_indices), for full and sliding windows alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.data.packing import PackedRows
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.rows.batches import padded, weights_of
from tunesmith_runtime.train.rows.forms import known
from tunesmith_runtime.train.rows.streaming import StreamedRows

CHECKED_TOKENS = 64
"""Tokens of each of the two rows that are compared."""
LEAK = 0.1
"""Share of the difference that a row before another makes to its logits, above which rows are not separate. Rounding in
bfloat16 makes up a few hundredths of it."""


@dataclass(frozen=True)
class PackedCollator:
    """Collates packed sequences; rows without `seq_lengths`, such as validation rows, go to `unpacked`."""

    pad_token: int
    unpacked: Callable[[list[dict[str, Any]]], dict[str, Tensor]]

    def __call__(self, sequences: list[dict[str, Any]]) -> dict[str, Tensor]:
        """A batch. Its attention mask counts tokens only: `without_mask` removes it before the model."""
        if "seq_lengths" not in sequences[0]:
            return {**self.unpacked(sequences), **weights_of(sequences)}
        ids, labels = ([sequence[name] for sequence in sequences] for name in ("input_ids", "labels"))
        positions = [torch.cat([torch.arange(length) for length in sequence["seq_lengths"]]) for sequence in sequences]
        return {
            **padded(ids, labels, self.pad_token),
            **weights_of(sequences),
            "position_ids": pad_sequence(positions, batch_first=True),  # a token of padding is a row of its own
        }


def without_mask(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of the model. A packed batch has no mask, which would mix the rows of a sequence."""
    return {name: value for name, value in inputs.items() if name != "attention_mask" or "position_ids" not in inputs}


def two_rows(dataset: Any) -> tuple[list[int], list[int]] | None:
    """Two rows of one sequence, at most CHECKED_TOKENS of each; None if rows are not packed, or none shares a sequence."""
    sequences = known(dataset)
    if not isinstance(dataset, PackedRows | StreamedRows) or "seq_lengths" not in sequences[0]:
        return None
    for sequence in (sequences[index] for index in range(len(sequences))):
        ids, lengths = sequence["input_ids"], sequence["seq_lengths"]
        if len(lengths) > 1:
            return ids[: min(lengths[0], CHECKED_TOKENS)], ids[lengths[0] :][: min(lengths[1], CHECKED_TOKENS)]
    return None


def check_separate_rows(model: nn.Module, before: Sequence[int], row: Sequence[int], device: torch.device) -> None:
    """Compare the logits of a row that follows the row `before` in a sequence with those of the row on its own.

    Raises RunFailure (BadSpec) where the model mixes rows: recurrent layers carry a state from row to row, and some models
    take no position ids.
    """
    both = [*before, *row]
    try:
        alone, follows, mixed = (
            _logits(model, device, ids, positions)[-len(row) :]
            for ids, positions in (
                (row, [*range(len(row))]),
                (both, [*range(len(before)), *range(len(row))]),
                (both, [*range(len(both))]),
            )
        )
    except TypeError as error:
        raise _refused(f"the model takes no position ids ({error})") from error
    leak, influence = float((follows - alone).abs().mean()), float((mixed - alone).abs().mean())
    if not leak <= LEAK * influence:
        raise _refused(f"the logits of a row change by {leak:.2g} when another row precedes it in the sequence")


@torch.no_grad()
def _logits(model: nn.Module, device: torch.device, ids: Sequence[int], positions: Sequence[int]) -> Tensor:
    """Logits (tokens, vocabulary) of a sequence, in a batch of two, as a batch of one takes other paths."""
    inputs = {"input_ids": [ids, ids], "position_ids": [positions, positions]}
    output = model(**{name: torch.tensor(value, device=device) for name, value in inputs.items()}, use_cache=False)
    logits: Tensor = output.logits[0].float()
    return logits


def _refused(cause: str) -> RunFailure:
    return RunFailure(
        FailureClass.BAD_SPEC,
        f"training.packing: this model mixes the rows of a sequence: {cause}",
        "set spec.training.packing: false",
    )
