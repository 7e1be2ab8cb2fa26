"""Models: find out what is at a URI, refuse what must not be loaded, import what must be converted, bring it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tunesmith_api.failures import FailureClass
from tunesmith_api.hashing import digest
from tunesmith_api.run import ModelRole, ResolvedModel
from tunesmith_runtime.errors import NotFound, RunFailure
from tunesmith_runtime.fetch.hub import download_snapshot, redirection
from tunesmith_runtime.fetch.imports import import_once, imported, key_of
from tunesmith_runtime.fetch.names import GGUF, SAFE, check_gguf_name, check_names, is_wanted
from tunesmith_runtime.modelcheck import check_files, check_model
from tunesmith_runtime.modelcheck.config import CONFIG, parse_config, read_config, refuse_quantized
from tunesmith_runtime.storage import Entry, Storage, join, name_of
from tunesmith_runtime.storage.directory import download_directory, read_manifest
from tunesmith_runtime.workdir import Work


@dataclass
class Model:
    """A model or adapter whose place is known. One that must be imported first gets its uri and digest from `bring`."""

    source: str
    """The URI that was asked for."""
    fingerprint: str
    """Tells its content from another."""
    directory: Path
    """Where it is brought to."""
    trusted: bool
    """Whether Python code in it may run; without that it is not brought."""
    uri: str | None = None
    """The folder of safetensors in the store; None until it is imported."""
    digest: str | None = None
    """sha256 of its manifest, where it has one."""
    importer: Callable[[Path], tuple[str, str]] | None = None
    """Imports it by way of a local folder, which is left with the model in it or empty; returns uri and digest."""
    base: Model | None = None
    """For an adapter: the model it goes on."""

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of the model, and of its base."""
        return {"model": self.fingerprint} | ({"base": self.base.fingerprint} if self.base else {})

    def bring(self, storage: Storage) -> None:
        """Import it if need be, and download it and its base."""
        if self.base is not None:
            self.base.bring(storage)
        if self.uri is None:
            assert self.importer is not None
            self.uri, self.digest = self.importer(self.directory)
        try:
            manifest = download_directory(
                storage, self.uri, self.directory, keep=partial(is_wanted, trusted=self.trusted)
            )
        except NotFound as missing:
            raise missing.named(FailureClass.MODEL_NOT_FOUND, "model") from missing
        if self.digest and manifest.digest != self.digest:
            message = f"{self.uri} is not what was put there: its manifest is {manifest.digest}, not {self.digest}"
            raise RunFailure(
                FailureClass.STORAGE_CORRUPT, message, "make it anew; an import, by deleting its folder below models/"
            )
        self.digest = manifest.digest


def find_model(storage: Storage, store_uri: str, asked: ResolvedModel, work: Work, is_lenient: bool) -> Model:
    """What is at a model's URI, to be brought to /work/model; an adapter goes to /work/adapter, and its base to /work/model.

    `is_lenient`: see check_model. Raises RunFailure (ModelNotFound, BadModel, UnsafeWeights, StorageCorrupt).
    """
    if asked.base is None:
        return _find_base(storage, store_uri, asked, work.model(), is_lenient)
    base = _find_base(storage, store_uri, asked.base, work.model(), is_lenient)
    return replace(_find(storage, store_uri, asked, work.model(ModelRole.ADAPTER), adapter=True), base=base)


def find_adapter(storage: Storage, store_uri: str, asked: ResolvedModel, directory: Path) -> Model:
    """What is at an adapter's URI, to be brought to `directory` without its base."""
    return _find(storage, store_uri, asked, directory, adapter=True)


def _find_base(storage: Storage, store_uri: str, asked: ResolvedModel, directory: Path, is_lenient: bool) -> Model:
    """A model that is no adapter; where it must not be quantized, its config.json is read before anything is downloaded."""
    model = _find(storage, store_uri, asked, directory, adapter=False, is_lenient=is_lenient)
    content = storage.read_bytes(join(model.uri, CONFIG)) if model.uri and not is_lenient else None
    if content is not None:
        refuse_quantized(asked.uri, parse_config(asked.uri, content))
    return model


def _look(uri: str, may_be_quantized: bool, folder: Path) -> None:
    if (folder / CONFIG).is_file() and not may_be_quantized:
        refuse_quantized(uri, read_config(uri, folder))


def _find(
    storage: Storage, store_uri: str, asked: ResolvedModel, directory: Path, adapter: bool, is_lenient: bool = False
) -> Model:
    if asked.is_on_hub:
        return _hub_model(storage, store_uri, asked, directory, adapter, is_lenient)
    check_gguf_name(asked.uri)
    try:
        single = storage.stat(asked.uri) if asked.uri.endswith(GGUF) else None
        if single:
            return _gguf_model(storage, store_uri, asked.uri, single, directory)
        entries = storage.list(asked.uri)
    except NotFound as missing:
        raise missing.named(FailureClass.MODEL_NOT_FOUND, "model") from missing
    names = [entry.path for entry in entries]
    check_names(asked.uri, names, adapter)
    if not any(name.endswith(SAFE) for name in names):
        entry = next(entry for entry in entries if entry.path.endswith(GGUF))
        return _gguf_model(storage, store_uri, join(asked.uri, entry.path), entry, directory)
    return _folder(storage, asked, entries, directory)


def _folder(storage: Storage, asked: ResolvedModel, entries: list[Entry], directory: Path) -> Model:
    """A folder of safetensors: known by its manifest, or by what is in it."""
    manifest = read_manifest(storage, asked.uri)
    if asked.digest and (manifest is None or manifest.digest != asked.digest):
        message = f"{asked.uri} is not what was published there: its manifest is {manifest.digest if manifest else 'missing'}, not {asked.digest}"
        raise RunFailure(FailureClass.STORAGE_CORRUPT, message, "run the FineTuneJob that made it anew")
    if manifest:
        return Model(asked.uri, manifest.digest, directory, asked.trust_remote_code, asked.uri, manifest.digest)
    content = {
        entry.path: storage.fingerprint(join(asked.uri, entry.path), entry)
        for entry in entries
        if is_wanted(entry.path, asked.trust_remote_code)
    }
    return Model(asked.uri, digest(content), directory, asked.trust_remote_code, asked.uri)


def _hub_model(
    storage: Storage, store_uri: str, asked: ResolvedModel, directory: Path, adapter: bool, is_lenient: bool
) -> Model:
    """A hub's model is known by its digest only after it is imported, so that comes first."""
    key = key_of(asked.uri, "", trusted=asked.trust_remote_code, server=redirection(asked.uri))

    def make(folder: Path) -> None:
        look = partial(_look, asked.uri, is_lenient or adapter)
        download_snapshot(asked.uri, folder, asked.trust_remote_code, adapter, look)
        for file in folder.glob(f"*{GGUF}"):
            _convert(asked.uri, file, folder)
        if adapter:
            check_files(asked.uri, folder)
        else:
            check_model(asked.uri, folder, asked.trust_remote_code, is_lenient)

    uri, found = import_once(storage, store_uri, key, asked.uri, directory, make)
    return Model(asked.uri, found, directory, asked.trust_remote_code, uri, found)


def _gguf_model(storage: Storage, store_uri: str, uri: str, entry: Entry, directory: Path) -> Model:
    fingerprint = storage.fingerprint(uri, entry)
    key = key_of(uri, fingerprint)

    def make(folder: Path) -> None:
        file = folder / name_of(uri)
        storage.download(uri, file, entry)
        _convert(uri, file, folder)
        check_model(uri, folder, trusted=False, is_lenient=False)

    place, found = imported(storage, store_uri, key) or (None, None)
    return Model(
        uri,
        fingerprint,
        directory,
        False,
        place,
        found,
        lambda folder: import_once(storage, store_uri, key, uri, folder, make),
    )


def _convert(uri: str, file: Path, folder: Path) -> None:
    from tunesmith_runtime.fetch.gguf import convert_gguf  # torch and transformers, for an import only

    convert_gguf(uri, file, folder)
    file.unlink()
