"""The reference model of a method: the model as it was before the training."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_runtime.train.losses.log_probs import LogProbs, answer_log_probs, token_log_probs
from tunesmith_runtime.train.strategies.fsdp import base_of, give_back, part_of
from tunesmith_runtime.train.strategies.tensor_parallel import DIVISION
from tunesmith_runtime.train.strategies.tensor_slices import part_for
from tunesmith_runtime.train.tuners.adapter import check_reference, compares_with_base


class Reference(Protocol):
    """Gives log-probabilities without gradients and dropout."""

    def __call__(self, inputs: Mapping[str, Tensor]) -> LogProbs:
        """Return the log-probabilities of the labelled tokens of each sequence. `inputs`: see `answer_log_probs`."""
        ...

    def of_tokens(self, inputs: Mapping[str, Tensor], temperature: float) -> Tensor:
        """Of each token, as the first result of `token_log_probs`."""
        ...


def reference_of(model: nn.Module, job: FineTuneJobSpec, bf16: bool) -> Reference:
    """Return the reference of a model before its training: the base below its adapter, with a copy of the adapter if it
    already has an effect; without an adapter, a frozen copy of the model.

    `bf16`: whether the training computes in bfloat16, and the copy is kept in it. Raises RunFailure (BadSpec) for a strategy that
    cannot go back to an adapter.
    """
    check_reference(job)
    if isinstance(model, PeftModel):
        return WithoutAdapter(model) if compares_with_base(job) else WithInitialAdapter(model)
    return Frozen(model, torch.bfloat16 if bf16 else torch.float32)


def present_reference(model: nn.Module, job: FineTuneJobSpec) -> Reference:
    """Return the same reference of a model that is not trained yet, valid until its first step, without a copy."""
    return WithoutAdapter(model) if isinstance(model, PeftModel) and compares_with_base(job) else Untrained(model)


class Below:
    """The trained model, which is in memory anyway, in a state that `_reference` sets for one forward pass."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __call__(self, inputs: Mapping[str, Tensor]) -> LogProbs:
        """As `Reference`."""
        with torch.no_grad(), evaluating(self._model), self._reference():
            return answer_log_probs(self._model, self._model.get_output_embeddings(), inputs)

    def of_tokens(self, inputs: Mapping[str, Tensor], temperature: float) -> Tensor:
        """As `Reference`."""
        with torch.no_grad(), evaluating(self._model), self._reference():
            return token_log_probs(self._model, self._model.get_output_embeddings(), inputs, temperature)[0]

    @abstractmethod
    def _reference(self) -> AbstractContextManager[None]:
        """Within the block, the model is the reference."""


class WithoutAdapter(Below):
    """The base with the adapter switched off. It takes no further memory."""

    @contextmanager
    def _reference(self) -> Iterator[None]:
        with self._model.disable_adapter():
            yield


class Untrained(Below):
    """The model itself, before its first step."""

    @contextmanager
    def _reference(self) -> Iterator[None]:
        yield


class WithInitialAdapter(Below):
    """The base with a copy of the adapter from before the training."""

    def __init__(self, model: PeftModel) -> None:
        super().__init__(model)
        self._initial = {name: weight.detach().clone() for name, weight in trained(model).items()}

    @contextmanager
    def _reference(self) -> Iterator[None]:
        weights = trained(self._model)
        values = {name: weight.detach().clone() for name, weight in weights.items()}
        self._initial = {name: value.to(weights[name].device) for name, value in self._initial.items()}
        self._set(self._initial)
        try:
            yield
        finally:
            self._set(values)

    def _set(self, values: Mapping[str, Tensor]) -> None:
        """Set the values of the adapter in place, as strategies keep views of them."""
        base = base_of(self._model)
        for name, weight in trained(self._model).items():
            weight.data.copy_(part_like(weight, values[name], base))


def trained(model: PeftModel) -> dict[str, nn.Parameter]:
    """Return the trained weights by name; those of FSDP as slices, so that the next pass gathers the values that they have."""
    own = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    if not any(isinstance(weight, DTensor) for weight in own.values()):
        return own
    give_back(model)
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def part_like(weight: Tensor, value: Tensor, base: nn.Module) -> Tensor:
    """Return what this process holds of the values of a weight, whole or held already, where processes share the layers of `base`."""
    if isinstance(weight, DTensor):
        part: Tensor = part_of(value, weight)
        return part
    if value.shape == weight.shape:
        return value
    group, _ = getattr(base, DIVISION)
    slice_: Tensor = part_for(value, weight, group)
    return slice_


class Frozen:
    """A copy of the whole model."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        self._model: Any = copy.deepcopy(model).requires_grad_(False).to(dtype).eval()

    def __call__(self, inputs: Mapping[str, Tensor]) -> LogProbs:
        """The first call moves the copy to the device of the inputs."""
        self._model.to(inputs["input_ids"].device)
        with torch.no_grad():
            return answer_log_probs(self._model, self._model.get_output_embeddings(), inputs)

    def of_tokens(self, inputs: Mapping[str, Tensor], temperature: float) -> Tensor:
        """On the device of the inputs."""
        self._model.to(inputs["input_ids"].device)
        with torch.no_grad():
            return token_log_probs(self._model, self._model.get_output_embeddings(), inputs, temperature)[0]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within the block, the model has no dropout."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
