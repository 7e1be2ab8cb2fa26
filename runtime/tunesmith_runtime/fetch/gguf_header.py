"""The header of a GGUF file: its metadata and the shapes of its tensors, read without its weights
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith_runtime.estimate.architecture import Architecture, Tensor, from_config, with_headers
from tunesmith_runtime.fetch.model_files import ModelFiles
from tunesmith_runtime.fetch.names import part_of
from tunesmith_runtime.modelcheck.failure import bad_model, detail
from tunesmith_runtime.modelcheck.files import file_type
from tunesmith_runtime.storage import Entry, join

if TYPE_CHECKING:
    from gguf import GGUFReader

MAGIC, ROPE = b"GGUF", "rope_"
"""First bytes of a file; prefix of the tensors that are computed from the metadata."""
UPLOAD = "upload the file again, or the model as safetensors"
HEADER_BYTES = 32 << 20
"""Bytes at the start of a file that are read first. A vocabulary of 150,000 tokens with its merges takes 6 to 8 MB."""
MOST_HEADER_BYTES = 512 << 20
OUTPUT, EMBEDDING = "output.weight", "token_embd.weight"

CONFIG_KEYS = {
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "feed_forward_length": "intermediate_size",
    "context_length": "max_position_embeddings",
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
}
"""Key of the metadata, behind the name of the architecture -> key of config.json."""
MODEL_TYPES = {
    "qwen2moe": "qwen2_moe",
    "qwen3moe": "qwen3_moe",
    "gemma3": "gemma3_text",
    "gpt-oss": "gpt_oss",
    "gptneox": "gpt_neox",
}
"""Architecture of a GGUF -> model type of transformers, where they differ."""


def read_header(files: ModelFiles, entry: Entry, path: Path) -> GGUFReader:
    """Write the header of a GGUF file to `path`, a sparse file as long as the whole, and return its reader.

    Raises RunFailure (BadModel), and those of `files`.
    """
    from gguf import GGUFReader

    uri, size, wanted = join(files.uri, entry.path), entry.size_bytes, HEADER_BYTES
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        content = files.read_range(entry.path, 0, min(wanted, size))
        path.write_bytes(content)
        check_magic(uri, path)
        os.truncate(path, size)
        try:
            reader = GGUFReader(path)
            cause = "it is cut short"
        except Exception as error:  # noqa: BLE001  # the reader raises any exception on unexpected content
            reader, cause = None, detail(error)
        if reader is not None and reader.data_offset <= len(content):
            check_parts(uri, reader)
            return reader
        if wanted >= min(size, MOST_HEADER_BYTES):
            raise bad_model(uri, None, f"the GGUF file cannot be read: {cause}", UPLOAD)
        wanted *= 4


def check_magic(uri: str, file: Path) -> None:
    """Raise RunFailure (BadModel) for a file that does not begin as a GGUF file."""
    with file.open("rb") as opened:
        start = opened.read(64)
    if not start.startswith(MAGIC):
        what, hint = file_type(start) or ("not a GGUF file", UPLOAD)
        raise bad_model(uri, None, f"the GGUF file cannot be read: it is {what}", hint)


def check_parts(uri: str, reader: GGUFReader) -> None:
    """Raise RunFailure (BadModel) for a part of a split model, by the metadata that gguf-split writes."""
    split = {name: field.contents() for name, field in reader.fields.items() if name.startswith("split.")}
    if (parts := split.get("split.count", 1)) > 1:
        raise part_of(uri, split.get("split.no", 0) + 1, parts)


def sizes_in(reader: GGUFReader) -> Architecture:
    """Return the sizes of the model that an import makes of a GGUF file, with weights in bf16. Raises UnknownArchitecture."""
    tensors = [
        Tensor("lm_head.weight" if each.name == OUTPUT else each.name, "BF16", tuple(map(int, each.shape[::-1])))
        for each in reader.tensors
        if not each.name.startswith(ROPE)
    ]
    by_config = from_config(_config(reader.fields, tensors))
    counted = with_headers(by_config, tensors)
    return replace(counted, linears=by_config.linears)  # the names of GGUF's layers are not those of transformers


def _config(fields: Mapping[str, Any], tensors: list[Tensor]) -> dict[str, Any]:
    """The config.json of the metadata, as far as sizes follow from it."""
    kind = str(fields["general.architecture"].contents()) if "general.architecture" in fields else ""
    config = {
        name: fields[f"{kind}.{key}"].contents() for key, name in CONFIG_KEYS.items() if f"{kind}.{key}" in fields
    }
    vocabulary = next((each.shape[0] for each in tensors if each.name == EMBEDDING), None)
    is_tied = all(each.name != "lm_head.weight" for each in tensors)
    return {
        **config,
        "model_type": MODEL_TYPES.get(kind, kind),
        "vocab_size": vocabulary,
        "tie_word_embeddings": is_tied,
        "torch_dtype": "bfloat16",
    }
