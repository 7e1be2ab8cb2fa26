"""A batch of rows with a common key-value cache. Rows join at any step and leave when they are finished.

Rows are padded on the left: each row of the cache begins with columns that the mask hides, followed by the row's tokens.
Positions count the row's own tokens, so that the result of a row does not depend on the other rows. A row with images begins
by itself, with the features of the images. In models that place the tokens of an image in its height and width, the text
behind it goes on from the larger of the two: its positions are shifted against the number of tokens.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer

MERGEABLE_LAYERS = frozenset({"full_attention", "sliding_attention", "chunked_attention"})
"""Layer types whose state is the keys and values of each token. Their sliding windows need only a mask."""


def can_merge(config: PretrainedConfig) -> bool:
    """Whether rows of this model can share a cache. Models with recurrent layers generate a single row at a time."""
    layers = getattr(config.get_text_config(), "layer_types", None)
    return layers is None or set(layers) <= MERGEABLE_LAYERS


def can_read_images(config: PretrainedConfig) -> bool:
    """Whether rows of this model can begin with images. Cross-attention layers read them again at every step."""
    return not getattr(config.get_text_config(), "cross_attention_layers", None)


def new_cache(config: PretrainedConfig) -> DynamicCache:
    """Return an empty cache, which keeps every token if rows are to share it."""
    return DynamicCache() if can_merge(config) else DynamicCache(config=config)


NO_INPUTS: Mapping[str, torch.Tensor] = {}


class Forward:
    """The forward pass as a function of tokens, mask, positions, cache, and the adapter of each row."""

    def __init__(self, model: Any, adapters: bool) -> None:
        self._model = model
        self._adapters = adapters
        self.config: PretrainedConfig = model.config
        self.device: torch.device = model.device
        base = model.get_base_model() if adapters else model
        self._positions = "position_ids" in inspect.signature(base.forward).parameters
        self._rope_index = getattr(base.base_model, "get_rope_index", None)

    def positions(
        self, tokens: torch.Tensor, mask: torch.Tensor, inputs: Mapping[str, torch.Tensor] = NO_INPUTS
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the positions of the tokens of prompts, and for each row the shift of the positions behind its prompt.

        Positions are [rows, tokens]; for a row with images [axes, 1, tokens] in models that place images in several axes.
        """
        if not inputs or self._rope_index is None:
            return (mask.cumsum(-1) - 1).clamp(min=0), mask.new_zeros(len(mask))
        taken = inspect.signature(self._rope_index).parameters
        grids = {name: value for name, value in inputs.items() if name in taken}
        positions, shifts = self._rope_index(input_ids=tokens, attention_mask=mask, **grids)
        return positions, shifts.flatten()

    @torch.inference_mode()
    def __call__(
        self,
        tokens: torch.Tensor,
        mask: torch.Tensor,
        positions: torch.Tensor,
        cache: DynamicCache,
        adapters: Sequence[str | None],
        inputs: Mapping[str, torch.Tensor] = NO_INPUTS,
    ) -> torch.Tensor:
        """Return float logits [rows, vocabulary] after the last token of each row, and append the tokens to the cache.

        `inputs`: the further inputs of the model for a single row with images.
        """
        extra: dict[str, Any] = {"position_ids": positions} if self._positions else {}
        if self._adapters and not inputs:  # peft's mixed batches: an adapter for each row
            extra["adapter_names"] = [adapter or "__base__" for adapter in adapters]
        with self._only(adapters[0]) if inputs else nullcontext():
            output = self._model(
                input_ids=tokens,
                attention_mask=mask,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
                **inputs,
                **extra,
            )
        logits: torch.Tensor = output.logits[:, -1]
        return logits.float()

    def _only(self, adapter: str | None) -> AbstractContextManager[Any]:
        """Activate an adapter for a single row: in a mixed batch, layers that read patches would take each patch for a row."""
        if self._adapters and adapter is None:
            return self._model.disable_adapter()  # type: ignore[no-any-return]
        if self._adapters:
            self._model.set_adapter(adapter, inference_mode=True)
        return nullcontext()


class Batch:
    """Rows in progress, by index. The caller maps indices to requests."""

    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self._cache = new_cache(forward.config)
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=forward.device)
        self._shifts = self._mask.new_zeros(0)
        self._adapters: list[str | None] = []

    def __len__(self) -> int:
        return len(self._adapters)

    @property
    def width(self) -> int:
        """Number of columns of the cache: the length of the longest row."""
        return self._mask.shape[1]

    def begin(
        self,
        prompts: Sequence[Sequence[int]],
        adapters: Sequence[str | None],
        inputs: Mapping[str, torch.Tensor] = NO_INPUTS,
    ) -> torch.Tensor:
        """Fill an empty batch; return float logits [rows, vocabulary] for the first tokens. After a failed forward the batch is empty.

        `inputs`: the further inputs of the model for a single prompt with images.
        """
        width = max(map(len, prompts))
        device = self._forward.device
        tokens = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
        inputs = {name: value.to(device) for name, value in inputs.items()}
        positions, shifts = self._forward.positions(tokens, mask, inputs)
        cache = new_cache(self._forward.config)
        logits = self._forward(tokens, mask, positions, cache, adapters, inputs)
        self._cache, self._mask, self._shifts, self._adapters = cache, mask, shifts, list(adapters)
        return logits

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        """Append a token to each row; return float logits [rows, vocabulary] for the next. A failed forward changes nothing."""
        mask = pad(self._mask, (0, 1), value=1)
        positions = (mask.sum(-1) - 1 + self._shifts)[:, None]
        ids = torch.tensor(tokens, device=self._forward.device)[:, None]
        try:
            logits = self._forward(ids, mask, positions, self._cache, self._adapters)
        except Exception:
            _change(self._cache, lambda states: states[:, :, : self.width])
            raise
        self._mask = mask
        return logits

    def merge(self, other: Batch) -> None:
        """Append the rows of another batch. A failed merge changes neither batch."""
        width = max(self.width, other.width)
        try:
            for ours, theirs in zip(_layers(self._cache), _layers(other._cache), strict=True):
                ours.keys = torch.cat([_widen(ours.keys, width), _widen(theirs.keys, width)])
                ours.values = torch.cat([_widen(ours.values, width), _widen(theirs.values, width)])
        except Exception:
            _change(self._cache, lambda states: states[: len(self), :, states.shape[2] - self.width :])
            raise
        self._mask = torch.cat([pad(part, (width - part.shape[1], 0)) for part in (self._mask, other._mask)])
        self._shifts = torch.cat([self._shifts, other._shifts])
        self._adapters += other._adapters

    def part(self, rows: slice) -> Batch:
        """Return adjacent rows as a separate batch, which shares memory with this batch until its next step."""
        batch = Batch(self._forward)
        batch._cache = copy.copy(self._cache)
        batch._cache.layers = [copy.copy(layer) for layer in self._cache.layers]
        _change(batch._cache, lambda states: states[rows])
        batch._mask, batch._shifts, batch._adapters = self._mask[rows], self._shifts[rows], self._adapters[rows]
        return batch

    def keep(self, rows: Sequence[int]) -> None:
        """Remove all rows but these, and the columns that no remaining row needs."""
        if len(rows) == len(self):
            return
        self._adapters = [self._adapters[row] for row in rows]
        if not rows:
            self._cache = new_cache(self._forward.config)
            self._mask, self._shifts = self._mask[:0, :0], self._shifts[:0]
            return
        index = torch.tensor(rows, device=self._forward.device)
        mask = self._mask[index]
        first = int(mask.any(0).int().argmax())
        self._mask, self._shifts = mask[:, first:], self._shifts[index]
        _change(self._cache, lambda states: states[index, :, first:])


def _layers(cache: DynamicCache) -> list[Any]:
    """Return the layers that hold keys and values."""
    return [layer for layer in cache.layers if isinstance(layer, DynamicLayer) and layer.is_initialized]


def _change(cache: DynamicCache, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Apply `change` to the keys and the values of every layer."""
    for layer in _layers(cache):
        layer.keys, layer.values = change(layer.keys), change(layer.values)


def _widen(states: torch.Tensor, width: int) -> torch.Tensor:
    """Pad states [rows, heads, tokens, size] on the left to `width` tokens."""
    return pad(states, (0, 0, width - states.shape[2], 0))
