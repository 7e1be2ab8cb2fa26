"""Models: identify the content of a URI, refuse unsafe weights, import hub and GGUF models, download."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tunesmith_api.failures import FailureClass
from tunesmith_api.hashing import digest
from tunesmith_api.run import ADAPTER_ROLES, Hub, ModelRole, ResolvedModel, RunSpec
from tunesmith_runtime.cache import Cache
from tunesmith_runtime.errors import NotFound, RunFailure
from tunesmith_runtime.fetch.archives import ARCHIVES, unpack
from tunesmith_runtime.fetch.hub import Download, redirection
from tunesmith_runtime.fetch.import_parts import Parts
from tunesmith_runtime.fetch.imports import MODELS, import_once, imported, key_of
from tunesmith_runtime.fetch.names import GGUF, SAFE, check_gguf_name, check_names, is_wanted
from tunesmith_runtime.modelcheck import check_files, check_model
from tunesmith_runtime.modelcheck.config import CONFIG, parse_config, read_config, refuse_head, refuse_quantized
from tunesmith_runtime.storage import Entry, Storage, join, name_of
from tunesmith_runtime.storage.directory import download_directory, read_manifest
from tunesmith_runtime.workdir import Work

log = logging.getLogger(__name__)


@dataclass
class Model:
    """A model or adapter that was found. If it must be imported first, `download` sets its uri and digest."""

    source: str
    """The URI in the spec."""
    fingerprint: str
    """Identifies its content."""
    directory: Path
    """Where it is downloaded to."""
    trusted: bool
    """Whether its Python code may run; otherwise the code is not downloaded."""
    uri: str | None = None
    """The folder of safetensors in the store; None until it is imported."""
    digest: str | None = None
    """sha256 of its manifest, if it has a manifest."""
    importer: Callable[[Path], tuple[str, str]] | None = None
    """Imports it through a local folder, which then holds the model or is empty; returns uri and digest."""
    base: Model | None = None
    """The base model of an adapter."""
    listed: list[Entry] | None = None
    """The files that `fingerprint` identifies, in a folder without a manifest."""

    @property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprints of the model and of its base."""
        return {"model": self.fingerprint} | ({"base": self.base.fingerprint} if self.base else {})

    def download(self, storage: Storage, cache: Cache | None = None) -> None:
        """Download the model and its base, through the cache if there is one, after the import if there is none yet."""
        if self.base is not None:
            self.base.download(storage, cache)
        if self.uri is None:
            assert self.importer is not None
            self.uri, self.digest = self.importer(self.directory)
        try:
            download = cache.download_directory if cache else download_directory
            manifest = download(storage, self.uri, self.directory, keep=partial(is_wanted, trusted=self.trusted))
        except NotFound as missing:
            raise missing.named(FailureClass.MODEL_NOT_FOUND, "model") from missing
        self._check_unchanged(storage)
        if self.digest and manifest.digest != self.digest:
            message = (
                f"{self.uri} has changed since it was published: its manifest is {manifest.digest}, not {self.digest}"
            )
            raise RunFailure(
                FailureClass.STORAGE_CORRUPT,
                message,
                "run the FineTuneJob that published it again, or delete its folder below models/ to import it again",
            )
        self.digest = manifest.digest

    def _check_unchanged(self, storage: Storage) -> None:
        """Raise RunFailure (StorageCorrupt) if the files are no longer those of the fingerprint, by which the run is known."""
        if self.listed is None or self.uri is None:
            return
        there = [entry for entry in storage.list(self.uri) if is_wanted(entry.path, self.trusted)]
        before, now = ({entry.path: entry for entry in each} for each in (self.listed, there))
        changed = sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))
        if changed:
            some = f"{', '.join(changed[:5])}{' ...' if len(changed) > 5 else ''}"
            raise RunFailure(
                FailureClass.STORAGE_CORRUPT,
                f"{self.uri} changed while it was fetched: {some}",
                "wait for the upload to end before a resource names its folder, and upload another model to a folder of its own",
            )


def find_model(
    storage: Storage, store_uri: str, asked: ResolvedModel, work: Work, is_lenient: bool, hub: Hub | None = None
) -> Model:
    """Find the model of a spec, for /work/model. An adapter is for /work/adapter, and its base for /work/model.

    `is_lenient`: see check_model. Raises RunFailure (ModelNotFound, BadModel, UnsafeWeights, StorageCorrupt, Hub...).
    """
    if asked.base is None:
        return _find_base(storage, store_uri, asked, work.model(), is_lenient, hub)
    base = _find_base(storage, store_uri, asked.base, work.model(), is_lenient, hub)
    return replace(_find(storage, store_uri, asked, work.model(ModelRole.ADAPTER), adapter=True, hub=hub), base=base)


def find_adapter(
    storage: Storage, store_uri: str, asked: ResolvedModel, directory: Path, hub: Hub | None = None
) -> Model:
    """Find an adapter, for `directory`; its base is not downloaded."""
    return _find(storage, store_uri, asked, directory, adapter=True, hub=hub)


def find_further(storage: Storage, spec: RunSpec, work: Work) -> dict[ModelRole, Model]:
    """Find the models in other roles than those of the spec's subject, each for the folder of its role."""
    found: dict[ModelRole, Model] = {}
    for role, asked in spec.models.items():
        if role not in (ModelRole.BASE, ModelRole.ADAPTER):
            find = find_adapter if role in ADAPTER_ROLES else partial(_find_base, is_lenient=False)
            found[role] = find(storage, spec.store.uri, asked, work.model(role), hub=spec.hub)
    return found


def _find_base(
    storage: Storage, store_uri: str, asked: ResolvedModel, directory: Path, is_lenient: bool, hub: Hub | None
) -> Model:
    """Find a model that is not an adapter. Refuse a model that writes no text by its config.json before the download, and,
    unless `is_lenient`, a quantized model."""
    model = _find(storage, store_uri, asked, directory, adapter=False, is_lenient=is_lenient, hub=hub)
    content = storage.read_bytes(join(model.uri, CONFIG)) if model.uri else None
    if content is not None:
        config = parse_config(asked.uri, content)
        refuse_head(asked.uri, config)
        if not is_lenient:
            refuse_quantized(asked.uri, config)
    return model


def _check_config(uri: str, may_be_quantized: bool, folder: Path) -> None:
    if not (folder / CONFIG).is_file():
        return
    config = read_config(uri, folder)
    refuse_head(uri, config)
    if not may_be_quantized:
        refuse_quantized(uri, config)


def _find(
    storage: Storage,
    store_uri: str,
    asked: ResolvedModel,
    directory: Path,
    adapter: bool,
    is_lenient: bool = False,
    hub: Hub | None = None,
) -> Model:
    if asked.is_on_hub:
        return _hub_model(storage, store_uri, asked, directory, adapter, is_lenient, hub)
    if asked.is_on_web:
        return _web_model(storage, store_uri, asked, directory, adapter, is_lenient)
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
    """A folder of safetensors, identified by its manifest, or by the fingerprints of its files."""
    manifest = read_manifest(storage, asked.uri)
    if manifest and asked.digest and manifest.digest != asked.digest:
        message = (
            f"{asked.uri} has changed since it was published: its manifest is {manifest.digest}, not {asked.digest}"
        )
        raise RunFailure(FailureClass.STORAGE_CORRUPT, message, "run the FineTuneJob that published it again")
    if manifest:
        return Model(asked.uri, manifest.digest, directory, asked.trust_remote_code, asked.uri, manifest.digest)
    wanted = [entry for entry in entries if is_wanted(entry.path, asked.trust_remote_code)]
    content = {entry.path: storage.fingerprint(join(asked.uri, entry.path), entry) for entry in wanted}
    # The digest of a folder without a manifest, as an earlier pod has reported it, is compared after the download.
    trusted = asked.trust_remote_code
    return Model(asked.uri, digest(content), directory, trusted, asked.uri, asked.digest, listed=wanted)


def _hub_model(
    storage: Storage,
    store_uri: str,
    asked: ResolvedModel,
    directory: Path,
    adapter: bool,
    is_lenient: bool,
    hub: Hub | None,
) -> Model:
    """Import a hub's model first: its digest is known only then."""
    key = key_of(asked.uri, "", trusted=asked.trust_remote_code, server=redirection(asked.uri, hub))
    parts = Parts(storage, join(store_uri, MODELS, key))

    def make(folder: Path) -> dict[str, str]:
        check_config = partial(_check_config, asked.uri, is_lenient or adapter)
        download = Download(asked.uri, folder, asked.trust_remote_code, adapter, check_config, parts)
        origin = download.run(hub)
        _finish(asked.uri, folder, asked.trust_remote_code, adapter, is_lenient)
        return origin

    uri, found = import_once(storage, store_uri, key, asked.uri, directory, make, parts)
    return Model(asked.uri, found, directory, asked.trust_remote_code, uri, found)


def _web_model(
    storage: Storage, store_uri: str, asked: ResolvedModel, directory: Path, adapter: bool, is_lenient: bool
) -> Model:
    """Import a file of a web server, unless this version of it is imported already."""
    check_gguf_name(asked.uri)
    from tunesmith_runtime.fetch import https

    file = https.look_up(asked.uri)
    if not file.fingerprint:
        log.warning("%s: the server sends neither ETag nor Last-Modified, so a change would go unnoticed", asked.uri)
    key = key_of(asked.uri, file.fingerprint)

    def make(folder: Path) -> dict[str, str]:
        sha256 = https.download(file, folder / name_of(asked.uri))
        if asked.uri.endswith(ARCHIVES):
            unpack(asked.uri, folder / name_of(asked.uri), folder)
        check_names(asked.uri, [path.relative_to(folder).as_posix() for path in folder.rglob("*")], adapter)
        _finish(asked.uri, folder, False, adapter, is_lenient)
        return {"sha256": sha256, "revision": file.etag}

    uri, found = import_once(storage, store_uri, key, asked.uri, directory, make)
    return Model(asked.uri, file.fingerprint or found, directory, False, uri, found)


def _finish(uri: str, folder: Path, trusted: bool, adapter: bool, is_lenient: bool) -> None:
    """Convert and check a model that was downloaded to a local folder. Raises RunFailure (BadModel, ModelNotFound)."""
    for file in folder.glob(f"*{GGUF}"):
        _convert(uri, file, folder)
    if adapter:
        check_files(uri, folder)
    else:
        check_model(uri, folder, trusted, is_lenient)


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
