"""Compares the tensors of an architecture with those in the files, and checks their values. Imports torch and transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedModel

from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.modelcheck.adapters import ADAPTER_CONFIG
from tunesmith_runtime.modelcheck.config import CONFIG
from tunesmith_runtime.modelcheck.failure import bad_model, detail, first_of
from tunesmith_runtime.modelcheck.files import read_header, read_json
from tunesmith_runtime.modelcheck.loading import META, check_finite, load_weights
from tunesmith_runtime.modelcheck.report import HINT
from tunesmith_runtime.tasks import LANGUAGE, Task, class_for

KNOWN = "name a model of an architecture that transformers has, or set spec.model.trustRemoteCode: true, which allowTrustRemoteCode in the chart's values must allow"
FLOATING = "upload the weights as they were before quantization or conversion"
VISION = "ForConditionalGeneration"
"""Architectures with this ending may be loaded as their language part."""


class UnknownArchitecture(Exception):
    """transformers does not load the architecture as a language model. An engine may do so."""

    def __init__(self, failure: RunFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def check_weights(uri: str, directory: Path, task: Task = LANGUAGE) -> int:
    """Check the weights in a folder against config.json, and each value; return the number of rows of the embedding.

    Raises RunFailure (BadModel), and UnknownArchitecture.
    """
    if (directory / ADAPTER_CONFIG).is_file():
        sentence = "lies beside a whole model, and transformers would load the adapter that it describes"
        raise bad_model(uri, ADAPTER_CONFIG, sentence, "remove it, or name the adapter and its base apart")
    config = read_architecture(uri, directory, task)
    model = load_weights(uri, directory, task, **META)
    check_name(uri, config.architectures or [], type(model).__name__)
    check_numbers(uri, directory)
    check_ties(uri, directory, model)
    return int(model.get_input_embeddings().weight.shape[0])


def read_architecture(uri: str, directory: Path, task: Task = LANGUAGE) -> Any:
    """Return the transformers config of a folder. Raises RunFailure (BadModel), UnknownArchitecture."""
    content = read_json(uri, directory / CONFIG)
    kind, layers = content.get("model_type"), content.get("num_hidden_layers") or content.get("n_layer")
    if not isinstance(kind, str):
        raise bad_model(uri, CONFIG, "has no model_type", HINT)
    tensors = sum(len(read_header(uri, path)) for path in directory.glob("*.safetensors"))
    if isinstance(layers, int) and layers > tensors:  # checked before the layers are built
        raise bad_model(uri, CONFIG, f"asks for {layers} layers, and the files hold {tensors} tensors", HINT)
    if kind not in CONFIG_MAPPING:
        raise UnknownArchitecture(bad_model(uri, CONFIG, f"transformers does not know the model_type {kind}", KNOWN))
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True)
    except Exception as error:  # config classes raise errors of any type for unexpected values
        raise bad_model(uri, CONFIG, f"cannot be used: {detail(error)}", HINT) from error
    if type(config) not in getattr(transformers, class_for(task, content))._model_mapping:
        what = "language model" if task is LANGUAGE else "model with a score"
        raise UnknownArchitecture(bad_model(uri, CONFIG, f"transformers has no {what} of type {kind}", KNOWN))
    return config


def check_name(uri: str, named: Sequence[str], loaded: str) -> None:
    """Compare `architectures`, which engines read, with the class of model_type. Raises RunFailure (BadModel)."""
    if named and not any(name.lower() == loaded.lower() or name.endswith(VISION) for name in named):
        sentence = f"names the architecture {first_of(named)}, and its model_type is loaded as {loaded}"
        raise bad_model(uri, CONFIG, sentence, f"name a model that is made to continue text, a {loaded}")


def check_numbers(uri: str, directory: Path) -> None:
    """Check that all weights in the files are finite floating point numbers. Raises RunFailure (BadModel).

    Masks and positions, which old checkpoints store as integers, do not count.
    """
    for file, name, tensor in _tensors(directory):
        if name.endswith(".weight") and not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise bad_model(uri, file, f"{name} is stored as {kind}, which is no floating point format", FLOATING)
        check_finite(uri, file, name, tensor)


def check_ties(uri: str, directory: Path, model: PreTrainedModel) -> None:
    """Check that weights that config.json ties are equal in the files. Raises RunFailure (BadModel)."""
    ties = getattr(model, "all_tied_weights_keys", {})
    names = {*ties, *ties.values()}
    found = {name: tensor for _, name, tensor in _tensors(directory) if name in names}
    for target, source in ties.items():
        if target in found and source in found and not torch.equal(found[target], found[source]):
            sentence = f"tie_word_embeddings ties {target} to {source}, but they differ in the files"
            raise bad_model(uri, CONFIG, sentence, "set tie_word_embeddings to false in config.json")


def _tensors(directory: Path) -> Iterator[tuple[str, str, torch.Tensor]]:
    """Yield file, name and tensor, each read on demand."""
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118  # not a mapping
                yield path.name, name, file.get_tensor(name)
