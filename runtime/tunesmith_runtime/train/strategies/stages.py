"""A stage of a pipeline: some layers of a decoder, in the first stage also the embedding, in the last one the head.

A stage keeps the modules of the whole model, so that weights have the same names, and the same numbers in the
optimizer, as in the whole model. Weights of other stages are empty, and their modules pass on what they receive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup as Group
from torch.distributed import broadcast

from tunesmith_runtime.modelcheck.stages import check_stages, not_pipelined
from tunesmith_runtime.train.rows.packing import without_mask
from tunesmith_runtime.train.strategies.fsdp import base_of

INPUTS = ("input_ids", "attention_mask", "position_ids")
"""Inputs of a decoder in a batch."""


class Stage:
    """The part of a model that one of `count` processes computes."""

    def __init__(self, model: nn.Module, index: int, count: int) -> None:
        """Empty the weights of other stages in `model`, which may have an adapter. Raises RunFailure (BadSpec)."""
        base = base_of(model)
        config = base.config.get_text_config()
        check_stages(config.model_type, config.num_hidden_layers, count)
        if getattr(config, "output_router_logits", False):
            raise not_pipelined("the loss of the model has a term of the routers of all layers (output_router_logits)")
        self.index, self.count = index, count
        self.autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
        """Within it, a forward pass computes in the number format of the training."""
        self.received: Tensor | None = None
        """Hidden states of the micro batch that is computed, from the stage before."""
        self.hidden_size, self.dtype = config.hidden_size, base.get_input_embeddings().weight.dtype
        self._decoder = base.get_decoder()
        modules = list(parts(base, count))
        self.owners = owners(model, modules)
        """Each weight, and the stages that have it: two have one that the head shares with the embedding."""
        self._shapes = {weight: weight.shape for weight in self.owners}
        for weight, stages in self.owners.items():
            if index not in stages:
                weight.data = weight.data.new_empty(0)
        self._replaced = [module for module, place in modules if place != index]
        for module, place in modules:
            if place != index:
                module.forward = self._receive if place < index else pass_on  # type: ignore[method-assign]

    @property
    def is_last(self) -> bool:
        """Whether it has the head, and computes the loss."""
        return self.index == self.count - 1

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(iter(self.owners)).device

    @property
    def tied(self) -> list[nn.Parameter]:
        """Trained weights that two stages have."""
        return [weight for weight, stages in self.owners.items() if len(stages) > 1 and weight.requires_grad]

    def counts(self, weight: nn.Parameter) -> bool:
        """Return whether a weight is counted here: one that two stages have is counted in the first."""
        return self.owners[weight][0] == self.index

    def hidden(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the hidden states of a batch for the next stage, (rows, length, hidden size)."""
        taken = {name: value for name, value in without_mask(inputs).items() if name in INPUTS}
        with self.autocast():
            hidden: Tensor = self._decoder(**taken, use_cache=False).last_hidden_state
        hidden = hidden.to(self.dtype).contiguous()
        # the schedule sends gradients back also to a stage without trained weights
        return hidden.requires_grad_() if torch.is_grad_enabled() and not hidden.requires_grad else hidden

    def whole(self, value: Tensor | None, weight: nn.Parameter, group: Group, keep: bool) -> Tensor:
        """Return the tensor `value` of the stage that holds a weight, of the shape of the weight, on the CPU. Only for `keep`."""
        if not self.counts(weight):
            value = torch.empty(self._shapes[weight], dtype=weight.dtype, device=weight.device)
        assert value is not None
        value = value.detach().contiguous()
        broadcast(value, group=group, group_src=self.owners[weight][0])
        return value.cpu() if keep else value.new_empty(0)

    def make_whole(self, group: Group, keep: bool) -> None:
        """Turn the model into one that is not divided, with its weights where `keep` is set."""
        for weight in self.owners:
            full = self.whole(weight.data, weight, group, keep)
            if keep:
                weight.data = full
        for module in self._replaced:
            del module.forward

    def _receive(self, *_: Any, **__: Any) -> Tensor | None:
        """Stand for a module of an earlier stage."""
        return self.received


def pass_on(hidden: Tensor, *_: Any, **__: Any) -> Tensor:
    """Stand for a module of a later stage."""
    return hidden


def parts(base: Any, count: int) -> Iterator[tuple[nn.Module, int]]:
    """Yield each part of a decoder, in the order of the computation, and its stage. The last stage has the head and the
    fewest layers."""
    decoder, last = base.get_decoder(), count - 1
    yield base.get_input_embeddings(), 0
    for index, layer in enumerate(decoder.layers):
        yield layer, index * count // len(decoder.layers)
    *_, norm = decoder.config.base_model_pp_plan  # transformers names what follows the layers last
    yield decoder.get_submodule(norm), last
    yield base.get_output_embeddings(), last


def owners(model: nn.Module, modules: list[tuple[nn.Module, int]]) -> dict[nn.Parameter, list[int]]:
    """Return the stages of each weight, from the stages of its module. Raises RunFailure (BadSpec) for a weight outside
    of `modules`."""
    found: dict[nn.Parameter, list[int]] = {}
    for module, stage in modules:
        for weight in module.parameters():
            stages = found.setdefault(weight, [])
            stages += [stage] if stage not in stages else []
    for name, weight in model.named_parameters():
        if weight not in found:
            raise not_pipelined(f"the weight {name} is outside of embedding, layers, last norm and head")
    return found
