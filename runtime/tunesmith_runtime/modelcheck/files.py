"""Checks the files of a model by headers and sizes: each has the format of its name, and none is missing."""

from __future__ import annotations

import codecs
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.modelcheck.failure import bad_model, first_of

INDEX = "*.safetensors.index.json"
UPLOAD = "upload the file again"
UNMARKED = "save the file as UTF-8 without a byte order mark, and upload it again"
HEADER_LIMIT = 100_000_000
"""Maximum length of a header that safetensors reads."""
JSON = "a JSON document"
BEGINNINGS: tuple[tuple[bytes, str, str | None], ...] = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer",
        "run git lfs pull where the model was cloned, then upload it again",
    ),
    (b"<!doctype", "an HTML page", None),
    (b"<html", "an HTML page", None),
    (b"<?xml", "an XML document, such as a store's error answer", None),
    (b"gguf", "a GGUF file", None),
    (b"pk\x03\x04", "a zip archive", "unpack it and upload what is in it as safetensors"),
    (b"\x1f\x8b", "a gzip archive", "unpack it and upload what is in it as safetensors"),
    (b"\x80", "a pickle", "convert the model to safetensors: pickles can run code"),
    (b"{", JSON, None),
)
"""First bytes of other files in lower case, their type, and a hint."""


def file_type(content: bytes) -> tuple[str, str] | None:
    """Return the type of a file by its first bytes, and a hint; None if the type is unknown."""
    start = content[:64].lstrip().lower()
    if not start:
        return "empty", UPLOAD
    return next(((what, hint or UPLOAD) for begin, what, hint in BEGINNINGS if start.startswith(begin)), None)


def read_json(uri: str, path: Path) -> dict[str, Any]:
    """Return the JSON object in a model's file. Raises RunFailure (BadModel)."""
    return parse_json(uri, path.name, path.read_bytes())


def parse_json(uri: str, name: str, content: bytes) -> dict[str, Any]:
    """Parse the JSON object of a model's file. Raises RunFailure (BadModel)."""
    try:
        parsed = json.loads(content.decode())  # transformers refuses a byte order mark as well
    except (ValueError, RecursionError) as error:
        what, hint = file_type(content) or (str(error), UNMARKED if content.startswith(codecs.BOM_UTF8) else UPLOAD)
        raise bad_model(uri, name, f"not JSON: {error if what == JSON else what}", hint) from error
    if not isinstance(parsed, dict):
        raise bad_model(uri, name, f"holds a JSON {type(parsed).__name__}, not an object", UPLOAD)
    return parsed


def check_files(uri: str, directory: Path) -> None:
    """Check every safetensors file and index in a folder.

    Raises RunFailure: BadModel; ModelNotFound if a file of an index is missing.
    """
    tensors = {path.name: read_header(uri, path) for path in sorted(directory.glob("*.safetensors"))}
    for index in sorted(directory.glob(INDEX)):
        _check_index(uri, index, tensors)


def read_header(uri: str, path: Path) -> dict[str, Any]:
    """Return the name of each tensor of a safetensors file -> dtype, shape and offsets. Raises RunFailure (BadModel).

    The format: 8 bytes little-endian length of a JSON header, the header, then the tensors' bytes, without holes.
    https://github.com/huggingface/safetensors#format
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, HEADER_LIMIT):
            raise _not_safetensors(uri, path, f"{size} bytes, its header alone would take {8 + length}")
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            places = sorted((*each["data_offsets"], name) for name, each in header.items())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _not_safetensors(uri, path, "its header is not the JSON that the format requires") from error
    end = 0
    for start, stop, name in places:
        if start != end or stop < start:
            raise bad_model(uri, path.name, f"damaged: the bytes of {name} overlap others or leave a hole", UPLOAD)
        end = stop
    if size != 8 + length + end:
        sentence = f"{size} bytes, its header declares {8 + length + end}: the file is cut short or damaged"
        raise bad_model(uri, path.name, sentence, UPLOAD)
    return dict(header)


def _not_safetensors(uri: str, path: Path, cause: str) -> RunFailure:
    with path.open("rb") as file:
        found = file_type(file.read(64))
    sentence = f"{found[0]}, not a whole safetensors file" if found else f"not a whole safetensors file: {cause}"
    return bad_model(uri, path.name, sentence, found[1] if found else UPLOAD)


def _check_index(uri: str, index: Path, tensors: dict[str, dict[str, Any]]) -> None:
    """Check that the shards of an index exist and hold the tensors that it lists."""
    content = read_json(uri, index)
    shards = content.get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise bad_model(uri, index.name, "has no weight_map of tensor names to file names", UPLOAD)
    if missing := sorted({shard for shard in shards.values() if shard not in tensors}):
        message = f"{uri}/{index.name}: names {len(set(shards.values()))} files, and {first_of(missing)} is missing"
        raise RunFailure(FailureClass.MODEL_NOT_FOUND, message, "upload the rest of the model")
    if absent := {name for name, shard in shards.items() if name not in tensors[shard]}:
        files = first_of({shards[name] for name in absent})
        raise bad_model(uri, index.name, f"places tensors in {files} that are not there: {first_of(absent)}", UPLOAD)
    places: dict[str, set[str]] = defaultdict(set)
    for shard in set(shards.values()):
        for name in tensors[shard]:
            places[name].add(shard)
    if twice := {name for name, where in places.items() if len(where) > 1}:
        where = first_of(set.union(*(places[name] for name in twice)))
        raise bad_model(uri, index.name, f"{where} hold the same tensors: {first_of(twice)}", "remove one of the files")
    if not isinstance(content.get("metadata"), dict):
        raise bad_model(uri, index.name, "has no object metadata, which transformers reads", 'add "metadata": {} to it')
