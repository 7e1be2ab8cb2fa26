"""Models from a hub: Hugging Face (hf://org/name@revision) and ModelScope (ms://org/name@revision), by their own clients.

Only safetensors, JSON and tokenizer files are downloaded; the model's Python code only if the resource trusts it. Each file
is verified by the digest that the hub lists. The servers of a hub are tried in the order of the chart's values, and files
that are finished remain when another server or another pod continues.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from tunesmith_api.catalogue.entries import HUBS
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import Hub
from tunesmith_runtime import credentials
from tunesmith_runtime.errors import RunFailure, StopRequested
from tunesmith_runtime.fetch.hub_types import (
    MODEL,
    HubFile,
    HubServer,
    Listing,
    RepositoryKind,
    Result,
    digests_of,
    wait_out,
)
from tunesmith_runtime.fetch.import_parts import Parts
from tunesmith_runtime.fetch.names import GGUF, SAFE, check_names
from tunesmith_runtime.modelcheck.config import CONFIG
from tunesmith_runtime.storage.files import disk_failures
from tunesmith_runtime.storage.manifest import inside

log = logging.getLogger(__name__)

WANTED = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken")
CODE = ("*.py",)
UNWANTED = ("*/*", "consolidated*")
"""Subfolders hold the same weights in other formats; so does Mistral's consolidated file."""

FILES_AT_ONCE = 4
LISTINGS = 3
"""How often the listing of a server is read: again after a file did not match it."""

REDIRECTIONS = {
    "hf": ("HF_ENDPOINT", "HUGGINGFACE_CO_STAGING"),
    "ms": ("MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN", "MODELSCOPE_PREFER_AI_SITE"),
}
"""Environment variables that redirect the hubs' clients to another server."""

MAY_BE_ELSEWHERE = (
    FailureClass.HUB_UNREACHABLE,
    FailureClass.HUB_RATE_LIMITED,
    FailureClass.HUB_CORRUPT,
    FailureClass.HUB_FORBIDDEN,
    FailureClass.MODEL_NOT_FOUND,
    FailureClass.DATASET_NOT_FOUND,
)
"""Failures of a server after which the next one is tried. If all fail, the first class of this list that occurred is reported:
ModelNotFound or DatasetNotFound only if every server lacks it, as a later attempt may succeed otherwise."""


def parse(uri: str) -> tuple[str, str, str | None]:
    """Scheme, org/name, and revision of a hub URI."""
    scheme, _, rest = uri.partition("://")
    name, _, revision = rest.partition("@")
    return scheme, name, revision or None


def endpoints_of(uri: str, hub: Hub | None) -> list[str]:
    """The URLs that the chart's values list for the hub of a URI; usually none."""
    scheme = parse(uri)[0]
    return next((urls for name, urls in (hub or Hub()).endpoints.items() if HUBS[name] == scheme), [])


def redirection(uri: str, hub: Hub | None, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment variables that redirect the client of a hub URI to a server other than the hub's; usually empty.

    The chart's endpoints take precedence over them. They do not count as a redirection: their content is trusted like
    the hub's.
    """
    if endpoints_of(uri, hub):
        return {}
    return {name: value for name in REDIRECTIONS[parse(uri)[0]] if (value := environment.get(name))}


def servers_of(uri: str, hub: Hub | None, kind: RepositoryKind = MODEL) -> list[HubServer]:
    """The servers of the hub of a URI, in the order in which they are asked. Their clients take a second to import."""
    scheme, name, revision = parse(uri)
    endpoints: Sequence[str | None] = endpoints_of(uri, hub) or [None]
    if scheme == "hf":
        from tunesmith_runtime.fetch.hub_huggingface import HuggingFace

        return [HuggingFace(uri, name, revision, endpoint, kind) for endpoint in endpoints]
    from tunesmith_runtime.fetch.hub_modelscope import ModelScope

    return [ModelScope(uri, name, revision, endpoint, kind) for endpoint in endpoints]


def on_any_server(servers: Sequence[HubServer], call: Callable[[HubServer], Result]) -> Result:
    """Return the result of `call` with the first server with which it succeeds.

    Raises RunFailure: of a class that is not in MAY_BE_ELSEWHERE at once, else what all servers answered.
    """
    failures = list[RunFailure]()
    for server in servers:
        try:
            return call(server)
        except RunFailure as failure:
            if failure.failure not in MAY_BE_ELSEWHERE:
                raise
            failures.append(failure)
            if server is not servers[-1]:
                log.warning("%s; trying the next server of hub.endpoints", failure.message)
    raise _combined(failures)


def choose(uri: str, server: HubServer, listing: Listing, trusted: bool, adapter: bool) -> list[HubFile]:
    """Return the files of a listing that are the model: safetensors or the only GGUF file, small files, and code if it is trusted.

    Raises RunFailure (ModelNotFound, UnsafeWeights, BadModel).
    """
    names = [file.path for file in listing.files]
    check_names(f"{uri} at {server.server}", names, adapter)
    weights = WANTED if any(name.endswith(SAFE) for name in names) else (f"*{GGUF}",)
    patterns = (*weights, *(CODE if trusted else ()))
    chosen = [file for file in listing.files if _matches(file.path, patterns) and not _matches(file.path, UNWANTED)]
    for file in chosen:
        try:
            inside(file.path)
        except ValueError as error:
            raise RunFailure(FailureClass.BAD_MODEL, f"model {uri}: {error}") from error
    return chosen


@dataclass
class Download:
    """A model (or adapter) that is being downloaded to a local folder."""

    uri: str
    directory: Path
    trust_remote_code: bool
    adapter: bool
    check_config: Callable[[Path], None]
    """Called when config.json is downloaded, before the weights are. Raises RunFailure if the model cannot be used."""
    parts: Parts
    _verified: dict[str, HubFile] = field(default_factory=dict)
    """The files that are on the disk and match their digest."""

    def run(self, hub: Hub | None) -> dict[str, str]:
        """Download the model: its safetensors, or its only GGUF file if it has none. Returns server and revision.

        Raises RunFailure (ModelNotFound, BadModel, UnsafeWeights, DiskFull, or of a class that begins with Hub), and any error
        of `check_config`.
        """
        credentials.trim()
        credentials.check(credentials.HUBS, FailureClass.MODEL_NOT_FOUND)
        found = on_any_server(servers_of(self.uri, hub), lambda server: (server.server, self._from(server)))
        self._remove_hidden()
        return dict(zip(("server", "revision"), found, strict=True))

    def _from(self, server: HubServer) -> str:
        """Download from one server; return the revision. The listing is read again after a file did not match it."""
        for trial in range(1, LISTINGS + 1):
            listing = wait_out(server.list_files)
            try:
                self._download(server, listing)
            except RunFailure as failure:
                if failure.failure is not FailureClass.HUB_CORRUPT or trial == LISTINGS:
                    raise
                log.warning("%s; reading the listing again (try %d of %d)", failure.message, trial, LISTINGS)
            else:
                return listing.revision
        raise AssertionError("unreachable")

    def _download(self, server: HubServer, listing: Listing) -> None:
        wanted = choose(self.uri, server, listing, self.trust_remote_code, self.adapter)
        self._check_room(server, wanted)
        log.info("%s: %d files of revision %s from %s", self.uri, len(wanted), listing.revision, server.server)
        first = [file for file in wanted if file.path == CONFIG]
        for files in (first, [file for file in wanted if file.path != CONFIG]):
            _for_each(lambda file: self._bring(server, listing, file), files)
            self.check_config(self.directory)

    def _check_room(self, server: HubServer, wanted: Sequence[HubFile]) -> None:
        """Raise RunFailure (DiskFull) if the files that are not on the disk yet do not fit on it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        needed = sum(file.size_bytes or 0 for file in wanted if not self._is_there(file))
        free = shutil.disk_usage(self.directory).free
        if needed > free:
            raise RunFailure(
                FailureClass.DISK_FULL,
                f"model {self.uri}: {server.server}: its files take {needed / 1e9:.1f} GB more, and {self.directory} has "
                f"{free / 1e9:.1f} GB free",
            )

    def _is_there(self, file: HubFile) -> bool:
        return self._verified.get(file.path) == file and file.digest is not None

    def _bring(self, server: HubServer, listing: Listing, file: HubFile) -> None:
        """Get one file to the disk, from the store or from the hub, and keep it in the store."""
        path = self.directory / file.path
        if self._is_there(file):
            return
        path.unlink(missing_ok=True)
        if self.parts.take(file, self.directory):
            log.info("%s: %s is in the store already", self.uri, file.path)
        else:
            wait_out(lambda: server.download(file, listing.revision, self.directory))
            self.parts.keep(file, self.directory, self._verify(server, file))
        self._verified[file.path] = file

    def _verify(self, server: HubServer, file: HubFile) -> str:
        """Return the sha256 of a downloaded file. Raises RunFailure (HubCorrupt) after deleting a file with another digest."""
        path = self.directory / file.path
        with disk_failures(path):
            digests, size = digests_of(path), path.stat().st_size
        if file.digest is None or digests[file.digest.kind] == file.digest.hex:
            return digests["sha256"]
        path.unlink()
        raise RunFailure(
            FailureClass.HUB_CORRUPT,
            f"model {self.uri}: {server.server}: {file.path}: the {size} bytes have the {file.digest.kind} digest "
            f"{digests[file.digest.kind][:12]}, and the hub lists {file.digest.hex[:12]} with {file.size_bytes} bytes",
        )

    def _remove_hidden(self) -> None:
        """Remove the state of the clients, which they keep in hidden files."""
        for leftover in self.directory.glob(".*"):
            shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink()


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def _for_each(work: Callable[[HubFile], None], files: Sequence[HubFile]) -> None:
    """Call `work` for some files at a time. Raises the first failure; StopRequested without waiting for files in progress."""
    pool, wait = ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="hub"), True
    try:
        for future in [pool.submit(work, file) for file in files]:
            future.result()
    except StopRequested:  # the process ends now, and what is finished is in the store
        wait = False
        raise
    finally:
        pool.shutdown(wait=wait, cancel_futures=True)


def _combined(failures: Sequence[RunFailure]) -> RunFailure:
    """Return the failure of a repository that no server could provide; it names what each of them answered."""
    if len(failures) == 1:
        return failures[0]
    decisive = min(failures, key=lambda failure: MAY_BE_ELSEWHERE.index(failure.failure))
    others = [failure.message for failure in failures if failure is not decisive]
    return RunFailure(decisive.failure, "; ".join([decisive.message, *others]), decisive.hint)
