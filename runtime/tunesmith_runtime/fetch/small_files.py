"""Downloads the files of a model but its weights: config, tokenizer, chat template. Those of a GGUF file are in its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from tunesmith_api.run import ModelRole
from tunesmith_runtime.fetch.model_files import ModelFiles, gguf_in
from tunesmith_runtime.fetch.models import Model
from tunesmith_runtime.fetch.names import GGUF, SAFE
from tunesmith_runtime.storage import Entry, Storage, join
from tunesmith_runtime.workdir import Work

SMALL_BYTES = 64 << 20
"""Size of a file at most."""


def download_small_files(files: ModelFiles, folder: Path) -> None:
    """Write the small files of a model to `folder`. Imports transformers for a GGUF file."""
    if (entry := gguf_in(files)) is not None:
        _convert_header(files, entry, folder)
        return
    for entry in files.list():
        if "/" not in entry.path and not entry.path.endswith((SAFE, GGUF)) and entry.size_bytes <= SMALL_BYTES:
            files.download(entry, folder / entry.path)


def _convert_header(files: ModelFiles, entry: Entry, folder: Path) -> None:
    """Write config.json and the tokenizer of a GGUF file to `folder`."""
    from tunesmith_runtime.fetch.gguf_header import read_header
    from tunesmith_runtime.multimodal.processor import PACKAGES
    from tunesmith_runtime.train.imports import hidden

    with TemporaryDirectory() as scratch:
        header = Path(scratch) / "header.gguf"
        read_header(files, entry, header)
        with hidden(PACKAGES):
            from tunesmith_runtime.fetch.gguf import write_small_files

            write_small_files(join(files.uri, entry.path), header, folder)


def download_tokenizers(storage: Storage, further: Mapping[ModelRole, Model], scratch: Work) -> None:
    """Download the small files of the models that have a template for the check of rows."""
    reward = further.get(ModelRole.REWARD)
    if reward is not None and (files := reward.files(storage)) is not None:
        download_small_files(files, scratch.model(ModelRole.REWARD))
