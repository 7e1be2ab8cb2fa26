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

from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.log_probs import LogProbs, answer_log_probs, token_log_probs
from tunesmith_runtime.train.tuners.adapter import begins_as_base


class Reference(Protocol):
    """Gives log-probabilities without gradients and dropout."""

    def __call__(self, inputs: Mapping[str, Tensor]) -> LogProbs:
        """Of the labelled tokens of each sequence; `inputs` as those of `answer_log_probs`."""
        ...

    def of_tokens(self, inputs: Mapping[str, Tensor], temperature: float) -> Tensor:
        """Of each token, as the first result of `token_log_probs`."""
        ...


def reference_of(model: nn.Module, job: FineTuneJobSpec, bf16: bool) -> Reference:
    """Return the reference of a model that is not trained yet: the base below its adapter, with the adapter as it is now if
    that has an effect, or else a frozen copy.

    `bf16`: whether the training computes in bfloat16, in which the copy is kept then.
    """
    if isinstance(model, PeftModel):
        return WithoutAdapter(model) if begins_as_base(job) else WithInitialAdapter(model)
    return Frozen(model, torch.bfloat16 if bf16 else torch.float32)


class Below:
    """The base of an adapter, which is in memory anyway, in a state that `_reference` sets for one forward pass."""

    def __init__(self, model: PeftModel) -> None:
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
    """The base with the adapter switched off. It takes no memory of its own."""

    @contextmanager
    def _reference(self) -> Iterator[None]:
        with self._model.disable_adapter():
            yield


class WithInitialAdapter(Below):
    """The base with the adapter as it was before the training, of which a copy is kept."""

    def __init__(self, model: PeftModel) -> None:
        super().__init__(model)
        self._trained = [weight for weight in model.parameters() if weight.requires_grad]
        self._initial = [weight.detach().clone() for weight in self._trained]

    @contextmanager
    def _reference(self) -> Iterator[None]:
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        """Exchange the values of the adapter and of the copy, which follows the adapter to its device.

        Raises RunFailure (BadSpec) if a strategy has put divided weights in the place of the adapter's.
        """
        present = {id(weight) for weight in self._model.parameters()}
        if not present.issuperset(map(id, self._trained)):
            raise RunFailure(
                FailureClass.BAD_SPEC,
                "the reference is the base with the adapter of lora.from, which is not divided among devices in this version",
                "set spec.parallelism.strategy: ddp",
            )
        for at, weight in enumerate(self._trained):
            weight.data, self._initial[at] = self._initial[at].to(weight.device), weight.data


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
