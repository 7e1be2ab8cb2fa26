"""The files of a model beside its weights on a web server: a single .safetensors file has neither architecture nor tokenizer."""

from __future__ import annotations

import re
from pathlib import Path

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch import https
from tunesmith_runtime.fetch.https import WebFile
from tunesmith_runtime.fetch.names import ADAPTER_CONFIG
from tunesmith_runtime.modelcheck.config import CONFIG
from tunesmith_runtime.storage import name_of

WEIGHTS, ADAPTER_WEIGHTS = "model.safetensors", "adapter_model.safetensors"
"""Names under which a model and an adapter are loaded."""
TOKENIZERS = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model",
    "vocab.json", "merges.txt", "chat_template.jinja", "generation_config.json",
)  # fmt: skip
SHARD = re.compile(r"-\d{5}-of-(?!00001)\d{5}\.safetensors$")
"""The end of the names of weights in several files."""
ABSENT = (FailureClass.MODEL_NOT_FOUND, FailureClass.HUB_FORBIDDEN)
"""Answers of servers for a file that does not exist: 404, and 403 of buckets whose listing is not public."""


def find_siblings(uri: str, adapter: bool) -> list[WebFile]:
    """Return the files of the model in the folder of its weights.

    Raises RunFailure: BadModel for one of several files of weights, ModelNotFound without the configuration.
    """
    if SHARD.search(uri):
        raise RunFailure(
            FailureClass.BAD_MODEL,
            f"model {uri}: the file has a part of the weights of a model",
            "name an archive (.tar.gz) of the whole folder in spec.model.uri",
        )
    folder, config = uri.rpartition("/")[0], ADAPTER_CONFIG if adapter else CONFIG
    found = [file for name in (config, *TOKENIZERS) if (file := _look_up(f"{folder}/{name}"))]
    if not found or name_of(found[0].uri) != config:
        raise RunFailure(
            FailureClass.MODEL_NOT_FOUND,
            f"model {uri}: there is no {folder}/{config}, and the weights alone do not describe the architecture",
            f"put {config} and the files of the tokenizer beside the weights, or name an archive (.tar.gz) of the whole folder in spec.model.uri",
        )
    return found


def download_all(weights: WebFile, siblings: list[WebFile], folder: Path, adapter: bool) -> str:
    """Download the weights, under the name by which they are loaded, and the files beside them. Return the sha256 of the weights."""
    for file in siblings:
        https.download(file, folder / name_of(file.uri))
    return https.download(weights, folder / (ADAPTER_WEIGHTS if adapter else WEIGHTS))


def _look_up(uri: str) -> WebFile | None:
    """The file at a URI; None if there is none."""
    try:
        return https.look_up(uri)
    except RunFailure as failure:
        if failure.failure not in ABSENT:
            raise
        return None
