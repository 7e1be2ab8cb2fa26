"""Models: identify the content of a URI, refuse unsafe weights, import hub, GGUF and quantized models, download."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith_api.failures import FailureClass
from tunesmith_api.hashing import digest
from tunesmith_api.run import ADAPTER_ROLES, Hub, ModelRole, ResolvedModel, RunSpec
from tunesmith_runtime.cache import Cache
from tunesmith_runtime.errors import NotFound, RunFailure
from tunesmith_runtime.fetch.archives import ARCHIVES, unpack
from tunesmith_runtime.fetch.hub import Download, redirection
from tunesmith_runtime.fetch.hub_files import find_model_files
from tunesmith_runtime.fetch.import_parts import Parts
from tunesmith_runtime.fetch.imports import MODELS, import_once, imported, key_of
from tunesmith_runtime.fetch.model_files import ModelFiles, StoredFiles
from tunesmith_runtime.fetch.names import GGUF, SAFE, check_gguf_name, check_names, is_wanted
from tunesmith_runtime.fetch.restored import restored_model
from tunesmith_runtime.modelcheck import check_files, check_model
from tunesmith_runtime.modelcheck.config import CONFIG, check_task, parse_config, quantization, read_config
from tunesmith_runtime.modelcheck.restorable import refuse_unrestorable
from tunesmith_runtime.storage import Entry, Storage, join, name_of
from tunesmith_runtime.storage.directory import download_directory, read_manifest
from tunesmith_runtime.tasks import LANGUAGE, REWARD, Task
from tunesmith_runtime.workdir import Work

log = logging.getLogger(__name__)


class Imported(NamedTuple):
    """A model that is in the store since its import."""

    uri: str
    digest: str
    fingerprint: str
    """Identifies its content where it comes from."""


@dataclass
class Model:
    """A model or adapter that was found. If it must be imported first, `bring_in` sets its uri, digest and fingerprint."""

    source: str
    """The URI in the spec."""
    fingerprint: str
    """Identifies its content; empty for a model of a hub until it is imported."""
    directory: Path
    """Where it is downloaded to."""
    trusted: bool
    """Whether its Python code may run; otherwise the code is not downloaded."""
    uri: str | None = None
    """The folder of safetensors in the store; None until it is imported."""
    digest: str | None = None
    """sha256 of its manifest, if it has a manifest."""
    importer: Callable[[Path], Imported] | None = None
    """Imports it through a local folder, which then holds the model or is empty."""
    origin: ModelFiles | None = None
    """Its files where it comes from; None if they can only be read after the import, as those of an archive."""
    is_remote: bool = False
    """Whether it comes from a hub or a web server, so that it is imported before devices are requested."""
    base: Model | None = None
    """The base model of an adapter."""
    listed: list[Entry] | None = None
    """The files that `fingerprint` identifies, in a folder without a manifest."""

    @property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprints of the model and of its base."""
        return {"model": self.fingerprint} | ({"base": self.base.fingerprint} if self.base else {})

    def files(self, storage: Storage) -> ModelFiles | None:
        """Return its files, in the store or where it comes from; None if they can't be read before the import."""
        return self.origin if self.uri is None else StoredFiles(storage, self.uri)

    def with_base(self) -> Iterator[Model]:
        """Yield its base if it is an adapter, then the model."""
        if self.base is not None:
            yield from self.base.with_base()
        yield self

    def bring_in(self) -> None:
        """Import it unless it is in the store. Raises RunFailure."""
        if self.uri is None:
            assert self.importer is not None
            self.uri, self.digest, self.fingerprint = self.importer(self.directory)

    def download(self, storage: Storage, cache: Cache | None = None) -> None:
        """Download the model and its base, through the cache if there is one, after the import if there is none yet."""
        if self.base is not None:
            self.base.download(storage, cache)
        self.bring_in()
        assert self.uri is not None
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
        """Raise RunFailure (StorageCorrupt) if the files no longer have the fingerprint that is part of the run's
        identity."""
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


CheckQuantized = Callable[[str, str], None]
"""Refuses a model, by its URI and the method of its quantization, before its weights are restored."""


def _accept(uri: str, method: str) -> None:
    pass


def find_model(
    storage: Storage,
    store_uri: str,
    asked: ResolvedModel,
    work: Work,
    is_lenient: bool,
    hub: Hub | None = None,
    check_quantized: CheckQuantized = _accept,
    disk_limit: str | None = None,
) -> Model:
    """Find the model of a spec, for /work/model. An adapter is for /work/adapter, and its base for /work/model.

    `is_lenient`: see check_model. `disk_limit`: maximum size of the work directory. Raises RunFailure (ModelNotFound, BadModel,
    UnsafeWeights, StorageCorrupt, DiskFull, Hub...), and what `check_quantized` raises.
    """
    find = partial(
        _find_base,
        storage,
        store_uri,
        directory=work.model(),
        is_lenient=is_lenient,
        hub=hub,
        check_quantized=check_quantized,
        disk_limit=disk_limit,
    )
    if asked.base is None:
        return find(asked)
    base = find(asked.base)
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
            of_base = partial(_find_base, is_lenient=False, task=task_in(role), disk_limit=disk_limit_of(spec))
            find = find_adapter if role in ADAPTER_ROLES else of_base
            found[role] = find(storage, spec.store.uri, asked, work.model(role), hub=spec.hub)
    return found


def disk_limit_of(spec: RunSpec) -> str | None:
    """Return the maximum size of the work directory, as a quantity; None without one."""
    limit = (spec.spec.get("resources") or {}).get("ephemeralStorage")
    return None if limit is None else str(limit)


def task_in(role: ModelRole) -> Task:
    """Return what the model in a role computes."""
    return REWARD if role is ModelRole.REWARD else LANGUAGE


def _find_base(
    storage: Storage,
    store_uri: str,
    asked: ResolvedModel,
    directory: Path,
    is_lenient: bool,
    hub: Hub | None,
    task: Task = LANGUAGE,
    check_quantized: CheckQuantized = _accept,
    disk_limit: str | None = None,
) -> Model:
    """Find a model that is not an adapter. Refuse a model of another task by its config.json before the download. Unless
    `is_lenient`, a quantized model is imported again with restored weights."""

    def settle(found: Model) -> Model:
        config = _config_of(storage, found)
        if config is None:
            return found
        check_task(asked.uri, config, task)
        if is_lenient or (method := quantization(config)) is None:
            return found
        refuse_unrestorable(asked.uri, config)
        check_quantized(asked.uri, method)
        if found.uri is None:
            return found  # restored after its import
        return restored_model(storage, store_uri, found, config, method, task, disk_limit)

    found = _find(storage, store_uri, asked, directory, adapter=False, is_lenient=is_lenient, hub=hub, task=task)
    model = settle(found)
    return replace(model, importer=partial(_import_and, settle, model)) if model.uri is None else model


def _import_and(settle: Callable[[Model], Model], model: Model, directory: Path) -> Imported:
    """Import a model, then convert it by `settle` and import the result."""
    imported_model = replace(model, directory=directory)
    imported_model.bring_in()
    settled = settle(imported_model)
    assert settled.uri is not None
    assert settled.digest is not None
    return Imported(settled.uri, settled.digest, settled.fingerprint)


def _config_of(storage: Storage, model: Model) -> dict[str, Any] | None:
    """The config.json of a model; None if there is none, or it can't be read before the import."""
    files = model.files(storage)
    content = files.read_bytes(CONFIG) if files else None
    return None if content is None else parse_config(model.source, content)


def _check_config(uri: str, is_lenient: bool, task: Task, folder: Path) -> None:
    if not (folder / CONFIG).is_file():
        return
    config = read_config(uri, folder)
    check_task(uri, config, task)
    if not is_lenient:
        refuse_unrestorable(uri, config)


def _find(
    storage: Storage,
    store_uri: str,
    asked: ResolvedModel,
    directory: Path,
    adapter: bool,
    is_lenient: bool = False,
    hub: Hub | None = None,
    task: Task = LANGUAGE,
) -> Model:
    if asked.is_on_hub:
        return _hub_model(storage, store_uri, asked, directory, adapter, is_lenient, hub, task)
    if asked.is_on_web:
        return _web_model(storage, store_uri, asked, directory, adapter, is_lenient, task)
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
    task: Task,
) -> Model:
    """A model of a hub. Its fingerprint is the digest of its files, which is known after its import."""
    key = key_of(asked.uri, "", trusted=asked.trust_remote_code, server=redirection(asked.uri, hub))
    parts = Parts(storage, join(store_uri, MODELS, key))

    def make(folder: Path) -> dict[str, str]:
        check_config = partial(_check_config, asked.uri, is_lenient or adapter, task)
        download = Download(asked.uri, folder, asked.trust_remote_code, adapter, check_config, parts)
        origin = download.run(hub)
        _finish(asked.uri, folder, asked.trust_remote_code, adapter, is_lenient, task)
        return origin

    def bring_in(folder: Path) -> Imported:
        uri, found = import_once(storage, store_uri, key, asked.uri, folder, make, parts)
        return Imported(uri, found, found)

    if imported(storage, store_uri, key) is not None:
        there = bring_in(directory)  # removes what a killed import has left
        return Model(asked.uri, there.fingerprint, directory, asked.trust_remote_code, there.uri, there.digest)
    files = find_model_files(asked.uri, hub, asked.trust_remote_code, adapter)
    return Model(asked.uri, "", directory, asked.trust_remote_code, importer=bring_in, origin=files, is_remote=True)


def _web_model(
    storage: Storage, store_uri: str, asked: ResolvedModel, directory: Path, adapter: bool, is_lenient: bool, task: Task
) -> Model:
    """A file of a web server, with the files beside safetensors, in the version that the server has now."""
    check_gguf_name(asked.uri)
    from tunesmith_runtime.fetch import https
    from tunesmith_runtime.fetch.web_siblings import download_all, find_siblings

    file = https.look_up(asked.uri)
    if not file.fingerprint:
        log.warning("%s: the server sends neither ETag nor Last-Modified, so a change would go unnoticed", asked.uri)
    siblings = find_siblings(asked.uri, adapter) if asked.uri.endswith(SAFE) else []
    fingerprint = file.fingerprint
    if siblings and fingerprint:
        fingerprint = digest({each.uri: each.fingerprint for each in (file, *siblings)})
    key = key_of(asked.uri, fingerprint)
    if (there := imported(storage, store_uri, key)) is not None:
        return Model(asked.uri, fingerprint or there[1], directory, False, *there)

    def make(folder: Path) -> dict[str, str]:
        if siblings:
            sha256 = download_all(file, siblings, folder, adapter)
        else:
            sha256 = https.download(file, folder / name_of(asked.uri))
        if asked.uri.endswith(ARCHIVES):
            unpack(asked.uri, folder / name_of(asked.uri), folder)
        check_names(asked.uri, [path.relative_to(folder).as_posix() for path in folder.rglob("*")], adapter)
        _finish(asked.uri, folder, False, adapter, is_lenient, task)
        return {"sha256": sha256, "revision": file.etag}

    def bring_in(folder: Path) -> Imported:
        uri, found = import_once(storage, store_uri, key, asked.uri, folder, make)
        return Imported(uri, found, fingerprint or found)

    files = https.files_of([file, *siblings]) if siblings or asked.uri.endswith(GGUF) else None
    return Model(asked.uri, fingerprint, directory, False, importer=bring_in, origin=files, is_remote=True)


def _finish(uri: str, folder: Path, trusted: bool, adapter: bool, is_lenient: bool, task: Task) -> None:
    """Convert and check a model that was downloaded to a local folder. Raises RunFailure (BadModel, ModelNotFound)."""
    for file in folder.glob(f"*{GGUF}"):
        _convert(uri, file, folder)
    if adapter:
        check_files(uri, folder)
    else:
        is_quantized = (folder / CONFIG).is_file() and quantization(read_config(uri, folder)) is not None
        check_model(uri, folder, trusted, is_lenient or is_quantized, task)


def _gguf_model(storage: Storage, store_uri: str, uri: str, entry: Entry, directory: Path) -> Model:
    fingerprint = storage.fingerprint(uri, entry)
    key = key_of(uri, fingerprint)

    def make(folder: Path) -> None:
        file = folder / name_of(uri)
        storage.download(uri, file, entry)
        _convert(uri, file, folder)
        check_model(uri, folder, trusted=False, is_lenient=False)

    if (there := imported(storage, store_uri, key)) is not None:
        return Model(uri, fingerprint, directory, False, *there)

    def bring_in(folder: Path) -> Imported:
        return Imported(*import_once(storage, store_uri, key, uri, folder, make), fingerprint)

    parent, _, name = uri.rpartition("/")
    return Model(uri, fingerprint, directory, False, importer=bring_in, origin=StoredFiles(storage, parent, name))


def _convert(uri: str, file: Path, folder: Path) -> None:
    from tunesmith_runtime.fetch.gguf import convert_gguf  # torch and transformers, for an import only

    convert_gguf(uri, file, folder)
    file.unlink()
