"""The reference model of a method: the model as it was before the training."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from peft import PeftModel
from torch import Tensor, nn

from tunesmith_runtime.train.log_probs import LogProbs, answer_log_probs, token_log_probs


class Reference(Protocol):
    """Gives log-probabilities without gradients and dropout."""

    def __call__(self, inputs: Mapping[str, Tensor]) -> LogProbs:
        """Of the labelled tokens of each sequence; `inputs` as those of `answer_log_probs`."""
        ...

    def of_tokens(self, inputs: Mapping[str, Tensor], temperature: float) -> Tensor:
        """Of each token, as the first result of `token_log_probs`."""
        ...


def reference_of(model: nn.Module, bf16: bool) -> Reference:
    """Return the reference of a model that is not trained yet: the base below its adapter, or else a frozen copy.

    `bf16`: whether the training computes in bfloat16, in which the copy is kept then.
    """
    if isinstance(model, PeftModel):
        return WithoutAdapter(model)
    return Frozen(model, torch.bfloat16 if bf16 else torch.float32)


@dataclass(frozen=True)
class WithoutAdapter:
    """The base of an adapter. It takes no memory of its own."""

    model: PeftModel

    def __call__(self, inputs: Mapping[str, Tensor]) -> LogProbs:
        """With the adapter switched off for one forward pass."""
        with self._base() as base:
            return answer_log_probs(base, base.get_output_embeddings(), inputs)

    def of_tokens(self, inputs: Mapping[str, Tensor], temperature: float) -> Tensor:
        """With the adapter switched off for one forward pass."""
        with self._base() as base:
            return token_log_probs(base, base.get_output_embeddings(), inputs, temperature)[0]

    @contextmanager
    def _base(self) -> Iterator[PeftModel]:
        with torch.no_grad(), evaluating(self.model), self.model.disable_adapter():
            yield self.model


class Frozen:
    """A copy of the whole model."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        self._model: Any = copy.deepcopy(model).requires_grad_(False).to(dtype).eval()

    def __call__(self, inputs: Mapping[str, Tensor]) -> LogProbs:
        """On the device of the inputs, to which the first call moves the copy."""
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
