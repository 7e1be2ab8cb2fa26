"""Is a downloaded model whole? Known before minutes of loading, and said with the file's name."""

from __future__ import annotations

import json
from pathlib import Path

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure


def check_folder(uri: str, directory: Path) -> None:
    """Check every safetensors file, and that the shards an index names are there. Raises RunFailure (StorageCorrupt)."""
    for path in sorted(directory.glob("*.safetensors")):
        if (wrong := safetensors_fault(path)) is not None:
            raise RunFailure(FailureClass.STORAGE_CORRUPT, f"{uri}/{path.name}: {wrong}", "upload the file anew")
    for index in directory.glob("*.safetensors.index.json"):
        shards = set(json.loads(index.read_text())["weight_map"].values())
        if missing := sorted(shard for shard in shards if not (directory / shard).is_file()):
            message = f"{uri}: {index.name} names {len(shards)} files, and {', '.join(missing[:4])} is missing"
            raise RunFailure(FailureClass.MODEL_NOT_FOUND, message, "upload the rest of the model")


def safetensors_fault(path: Path) -> str | None:
    """What is wrong with a safetensors file, from its header and its size alone; None where nothing is.

    The format: 8 bytes little-endian length of a JSON header, the header, then the tensors' bytes, whose ends the
    header names.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            return f"not a whole safetensors file: {size} bytes, its header alone would take {8 + length}"
        try:
            header = json.loads(file.read(length))
            end = max(
                (tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"), default=0
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return "not a safetensors file: its header is not the JSON that the format asks for"
    if size != 8 + length + end:
        return f"{size} bytes, its header says {8 + length + end}: the file is cut short or damaged"
    return None
