"""Reads the sizes of a model: config.json and the headers of its weights, or the metadata of a GGUF file."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from tunesmith_runtime.estimate.architecture import Architecture, Tensor, from_config, tensors_of, with_headers
from tunesmith_runtime.fetch.model_files import ModelFiles, gguf_in
from tunesmith_runtime.fetch.names import SAFE
from tunesmith_runtime.modelcheck.config import CONFIG, parse_config, quantization

LENGTH_BYTES = 8
"""Bytes at the start of a safetensors file that hold the length of its header."""
MOST_HEADER_BYTES = 64 << 20


def read_architecture(files: ModelFiles) -> Architecture:
    """Read the sizes of a model; for a quantized model, the sizes of its restored weights, from its config.json only; for a GGUF
    file, those of the model that is imported from it.

    Raises UnknownArchitecture, and RunFailure (BadModel)."""
    if (entry := gguf_in(files)) is not None:
        from tunesmith_runtime.fetch.gguf_header import read_header, sizes_in

        with TemporaryDirectory() as folder:
            return sizes_in(read_header(files, entry, Path(folder) / "header.gguf"))
    config = parse_config(files.uri, files.read_bytes(CONFIG) or b"")
    if quantization(config):
        return from_config(config)
    tensors: list[Tensor] = []
    for entry in files.list():
        if entry.path.endswith(SAFE) and "/" not in entry.path:
            tensors += _read_tensors(files, entry.path)
    return with_headers(from_config(config), tensors)


def _read_tensors(files: ModelFiles, path: str) -> list[Tensor]:
    """Read the header of a safetensors file by ranges; empty if it has none that can be read."""
    length = int.from_bytes(files.read_range(path, 0, LENGTH_BYTES), "little")
    if not 0 < length <= MOST_HEADER_BYTES:
        return []
    try:
        return tensors_of(json.loads(files.read_range(path, LENGTH_BYTES, length)))
    except (ValueError, KeyError, TypeError):
        return []
