"""Imports a quantized model of the store once more, with its weights restored as floating point numbers."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith_runtime.disk_space import check_room
from tunesmith_runtime.estimate.architecture import UnknownArchitecture, from_config
from tunesmith_runtime.fetch.imports import import_once, key_of
from tunesmith_runtime.fetch.names import SAFE
from tunesmith_runtime.modelcheck import check_model
from tunesmith_runtime.storage import Storage
from tunesmith_runtime.tasks import Task

if TYPE_CHECKING:
    from tunesmith_runtime.fetch.models import Model


def restored_model(
    storage: Storage,
    store_uri: str,
    model: Model,
    config: Mapping[str, Any],
    method: str,
    task: Task,
    disk_limit: str | None,
) -> Model:
    """Return `model` with restored weights. `config` declares a quantization by `method`. Its fingerprint
    is still that of the quantized model.

    `disk_limit`: maximum size of the work directory, as a quantity. Raises RunFailure: BadModel; DiskFull, before anything is
    downloaded.
    """

    def make(folder: Path) -> dict[str, str]:
        check_room(
            folder.parent, disk_limit, needed_bytes(storage, model, config), f"{model.source} with restored weights"
        )
        quantized = folder.with_name(f"{folder.name}-quantized")
        try:
            replace(model, directory=quantized).download(storage)
            check_model(model.source, quantized, model.trusted, is_lenient=True, task=task)
            _dequantize(model.source, quantized, folder)
        finally:
            shutil.rmtree(quantized, ignore_errors=True)
        check_model(model.source, folder, model.trusted, is_lenient=False, task=task)
        return {"quantization": method}

    key = key_of(model.source, f"{model.fingerprint} restored", trusted=model.trusted)
    uri, found = import_once(storage, store_uri, key, model.source, model.directory, make)
    return replace(model, uri=uri, digest=found, listed=None)


def needed_bytes(storage: Storage, model: Model, config: Mapping[str, Any]) -> int:
    """Return the disk that restoring a quantized model takes: at least its files twice, and for a known architecture its files and
    the restored weights."""
    assert model.uri is not None
    stored = sum(entry.size_bytes for entry in storage.list(model.uri) if entry.path.endswith(SAFE))
    try:
        return stored + round(from_config(config).stored_bytes)
    except UnknownArchitecture:
        return 2 * stored


def _dequantize(uri: str, quantized: Path, folder: Path) -> None:
    from tunesmith_runtime.multimodal.processor import PACKAGES
    from tunesmith_runtime.train.imports import hidden

    with hidden(PACKAGES):  # torch, for an import only
        from tunesmith_runtime.fetch.dequantize import dequantize

        dequantize(uri, quantized, folder)
