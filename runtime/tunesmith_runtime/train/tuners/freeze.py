"""Weights that tuner full does not train (`training.freeze`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from torch import nn
from transformers import PreTrainedModel

from tunesmith_api.failures import FailureClass
from tunesmith_api.training import NO_PART, PARTS, Training
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.models.modalities import check_parts, parts_of

LAYERS, PATTERN = "layers:", "pattern:"
"""How the parts begin that are numbers of layers, or a regular expression."""


def freeze(model: PreTrainedModel, training: Training) -> None:
    """Freeze the weights of the parts that `training.freeze` names; of a multimodal model, by default all but the language model.

    Raises RunFailure (BadSpec) for a part that the model does not have, for a weight that is shared with a part that is
    trained, and if nothing is left to train.
    """
    names = {name: id(weight) for name, weight in model.named_parameters(remove_duplicate=False)}
    parts = parts_of(model)
    check_parts(parts, training)
    frozen = {name for name in names if parts.of(name) in training.frozen_parts}
    others = [part for part in training.freeze or () if part not in (*PARTS, NO_PART)]
    frozen |= {name for part in others for name in weights_of(model, part)}
    ids = {names[name] for name in frozen}
    if shared := [name for name, weight in names.items() if weight in ids and name not in frozen]:
        owner = next(name for name in frozen if names[name] == names[shared[0]])
        raise _refused(
            f"{owner} shares its weight with {shared[0]}, so that both are frozen or none",
            "name both in spec.training.freeze, such as [embeddings, head], or none of them",
        )
    if ids == {*names.values()}:
        raise _refused("all weights of the model are frozen", "name fewer parts in spec.training.freeze")
    for weight in model.parameters():
        if id(weight) in ids:
            weight.requires_grad_(False)


def weights_of(model: PreTrainedModel, part: str) -> list[str]:
    """Return the names of the weights of a part, at least one. Raises RunFailure (BadSpec)."""
    belongs = _membership(model, part)
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    if found := [name for name in names if belongs(name)]:
        return found
    raise _refused(
        f"{part!r} names no weight of the model, whose weights are called {names[0]} to {names[-1]}",
        "correct spec.training.freeze: a pattern matches whole names of weights",
    )


def _membership(model: PreTrainedModel, part: str) -> Callable[[str], bool]:
    """Return the function that tests whether a weight belongs to a part, by its name."""
    if part.startswith(LAYERS):
        return _within(_layers(model, part))
    if part.startswith(PATTERN):
        try:
            matches = re.compile(part.removeprefix(PATTERN)).fullmatch
        except re.error as error:
            raise _refused(f"{part!r} has no regular expression: {error}", "correct spec.training.freeze") from error
        return lambda name: matches(name) is not None
    if part == "embeddings":
        return _within([name for name, module in model.named_modules() if isinstance(module, nn.Embedding)])
    head = model.get_output_embeddings()
    return _within([name for name, module in model.named_modules() if module is head])


def _layers(model: PreTrainedModel, part: str) -> list[str]:
    """Return the names of the decoder layers of a part such as layers:0-15."""
    count = model.config.get_text_config().num_hidden_layers
    decoder = model.get_decoder() or model
    within = {id(each) for each in decoder.modules()}
    found = ((name, each) for name, each in model.named_modules() if id(each) in within)
    lists = (name for name, each in found if isinstance(each, nn.ModuleList) and len(each) == count)
    name = next(lists, None)
    first, _, last = part.removeprefix(LAYERS).partition("-")
    if name is None or not int(first) <= int(last or first) < count:
        sentence = f"{part!r} is no range of the model's layers, 0 to {count - 1}"
        raise _refused(sentence, f"write layers:0-{count - 1} or a part of it in spec.training.freeze")
    return [f"{name}.{number}" for number in range(int(first), int(last or first) + 1)]


def _within(modules: Sequence[str]) -> Callable[[str], bool]:
    """Return the function that tests whether a weight is in one of the modules."""
    return lambda name: any(name.startswith(f"{module}.") for module in modules)


def _refused(sentence: str, hint: str) -> RunFailure:
    return RunFailure(FailureClass.BAD_SPEC, f"training.freeze: {sentence}", hint)
