"""EVA (Paischer et al., 2024, https://arxiv.org/abs/2410.07170) with one rank for all layers: the matrices A begin with the directions in
which the inputs of their layers are largest, on the first rows of the data: their right singular vectors. The matrices B begin with zero.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor

log = logging.getLogger(__name__)

TOKENS, BATCH_TOKENS = 1 << 14, 1 << 11
"""Tokens of the first rows that are used in all, and in a batch."""
KEPT = 4
"""Directions that are kept from batch to batch, for each of the wanted ones."""
SEED = 0
"""Seed of the random projection that finds singular vectors, so that all processes find the same ones."""


def begin_with_inputs(model: PeftModel, rows: Iterable[Sequence[int]]) -> None:
    """Give the new adapter of `model` the directions of its inputs on `rows`, each the tokens of a row.

    Raises RunFailure (BadSpec) for fewer tokens than directions.
    """
    import torch

    from tunesmith_runtime.train.models.reference import evaluating
    from tunesmith_runtime.train.rows.batches import padded

    device = next(model.parameters()).device
    with torch.no_grad(), evaluating(model), model.disable_adapter(), collecting(model) as found:
        for batch in batches(rows):
            inputs = {name: each.to(device) for name, each in padded(batch, batch, 0).items() if name != "labels"}
            found.mask = inputs["attention_mask"].bool()
            backbone = model.get_base_model().base_model  # without the output layer
            backbone(**inputs, use_cache=False)
    for name, directions in found.of_layer.items():
        layer: Any = model.get_submodule(name)
        (adapter,) = layer.active_adapters
        with torch.no_grad():
            layer.lora_A[adapter].weight.copy_(directions.first(name))
    log.info("lora.init eva: %d layers begin with directions of their inputs", len(found.of_layer))


def batches(rows: Iterable[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    """Yield the first rows, up to TOKENS tokens, in batches of about BATCH_TOKENS tokens; a longer row is cut."""
    left, batch, size = TOKENS, list[Sequence[int]](), 0
    for row in rows:
        kept = row[: min(left, BATCH_TOKENS)]
        batch.append(kept)
        size, left = size + len(kept), left - len(kept)
        if size >= BATCH_TOKENS or not left:
            yield batch
            batch, size = [], 0
        if not left:
            return
    if batch:
        yield batch


class Directions:
    """The right singular vectors of a matrix that comes in parts: its rows are the inputs of a layer."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._values: Tensor | None = None
        self._vectors: Tensor | None = None

    def add(self, rows: Tensor) -> None:
        """Add inputs (tokens, size)."""
        import torch

        with torch.autocast(rows.device.type, enabled=False), torch.random.fork_rng():
            seen = rows.float()
            if self._values is not None and self._vectors is not None:
                seen = torch.cat([self._values[:, None] * self._vectors, seen])
            torch.manual_seed(SEED)
            _, self._values, vectors = torch.svd_lowrank(seen, q=min(KEPT * self._rank, *seen.shape), niter=4)
            self._vectors = vectors.T

    def first(self, name: str) -> Tensor:
        """Return the vectors of the largest singular values, (rank, size), for the layer `name`. Raises RunFailure
        (BadSpec) if there are fewer than `rank`."""
        count = 0 if self._vectors is None else len(self._vectors)
        if self._vectors is None or count < self._rank:
            raise RunFailure(
                FailureClass.BAD_SPEC,
                f"lora.init eva begins with lora.rank {self._rank} directions of the inputs of {name}, and the first rows have {count} tokens",
                "lower spec.lora.rank, or remove spec.lora.init",
            )
        return self._vectors[: self._rank]


class Collector:
    """Takes the inputs of layers in the forward pass. Layers that follow each other often have the same."""

    def __init__(self) -> None:
        self.of_layer: dict[str, Directions] = {}
        """Name of an adapted layer -> the directions of its inputs."""
        self.mask: Tensor
        """Whether a position of the current batch is a token, (rows, length)."""
        self._latest: Tensor | None = None
        self._directions: Directions | None = None

    def receive(self, name: str, layer: Any, inputs: tuple[Any, ...]) -> None:
        """Add the input of the layer `name`, unless it is the input of the previous layer too."""
        if inputs[0] is not self._latest or self._directions is None:
            (adapter,) = layer.active_adapters
            self._latest = inputs[0]
            self._directions = self.of_layer.get(name) or Directions(layer.r[adapter])
            is_of_rows = self._latest.shape[:-1] == self.mask.shape  # those of an expert are of some tokens
            tokens = self._latest[self.mask] if is_of_rows else self._latest.flatten(0, -2)
            self._directions.add(tokens)
        self.of_layer.setdefault(name, self._directions)


@contextmanager
def collecting(model: PeftModel) -> Iterator[Collector]:
    """Within the block, collect the inputs of the layers of `model` that have matrices A of linear layers."""
    from peft.tuners.lora import LoraLayer

    found = Collector()
    adapted = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, LoraLayer) and layer.lora_A]
    hooks = [layer.register_forward_pre_hook(partial(found.receive, name)) for name, layer in adapted]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
