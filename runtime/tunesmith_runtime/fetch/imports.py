"""Import once: a model that must be downloaded from a hub or converted lands in the store, whoever asks first.

<store>/models/<key>/model.json names the folder of the finished import and is written last, only where there is none. A
claim object keeps others from doing the same work; it is renewed while the work goes on, and one that is not renewed
for a while is taken over. The claim only saves work: should two import all the same, each writes a folder named by
its content's digest, and one model.json wins.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tunesmith_api.hashing import digest
from tunesmith_api.run import POD_NAME_VARIABLE
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.storage import Storage, join
from tunesmith_runtime.storage.directory import delete_directory, publish_directory

log = logging.getLogger(__name__)

MODELS, POINTER, CLAIM = "models", "model.json", "claim.json"
RENEW_SECONDS = 10.0
STALE_SECONDS = 60.0
LOOK_SECONDS = 2.0


def key_of(source: str, revision: str, trusted: bool = False, server: Mapping[str, str] | None = None) -> str:
    """The key of an imported model: equal for the same source and revision (a hub's, or a file's fingerprint).

    `server` says by what settings another server stands for the hub, if one does: what that holds under the hub's names
    is never taken for what the hub holds.
    """
    more = {"code": True} if trusted else {}
    return digest({"source": source, "revision": revision, **more, **({"server": dict(server)} if server else {})})[:16]


def imported(storage: Storage, store_uri: str, key: str) -> tuple[str, str] | None:
    """URI and digest of the import of that key, if it is finished."""
    content = storage.read_bytes(join(store_uri, MODELS, key, POINTER))
    if content is None:
        return None
    pointer = json.loads(content)
    return pointer["uri"], pointer["digest"]


def import_once(
    storage: Storage, store_uri: str, key: str, source: str, scratch: Path, make: Callable[[Path], None]
) -> tuple[str, str]:
    """URI and digest of the model of that key; where no other pod makes it or did, `make` makes it in `scratch`, which keeps it."""
    folder = join(store_uri, MODELS, key)
    claim = _Claim(storage, join(folder, CLAIM))
    told = False
    while (found := imported(storage, store_uri, key)) is None:
        if claim.take():
            with claim.kept():  # who had the claim before may have finished since we looked
                return imported(storage, store_uri, key) or _import(storage, folder, source, scratch, make)
        if not told:
            log.info("%s is being imported by %s; waiting for it", source, claim.holder)
            told = True
        time.sleep(LOOK_SECONDS)
    return found


def _import(storage: Storage, folder: str, source: str, scratch: Path, make: Callable[[Path], None]) -> tuple[str, str]:
    """Make the model and point to it, unless another pod has meanwhile: then its model counts, and ours is removed."""
    log.info("importing %s into %s", source, folder)
    started = time.monotonic()
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        make(scratch)
        model = publish_directory(storage, scratch, folder, "model")
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    ours = {"uri": model.uri, "digest": model.digest, "source": source}
    pointer = json.loads(storage.write_once(join(folder, POINTER), json.dumps(ours, indent=1).encode()))
    if pointer["uri"] != model.uri:
        log.info("another pod was first: %s", pointer["uri"])
        delete_directory(storage, model.uri)
    log.info("imported %s in %.0f s", source, time.monotonic() - started)
    return pointer["uri"], pointer["digest"]


class _Claim:
    """An object that says who is at work. Its age is judged by this pod's own clock: how long it stays the same."""

    def __init__(self, storage: Storage, uri: str) -> None:
        self.storage, self.uri = storage, uri
        self.holder = "another pod"
        self._name = os.environ.get(POD_NAME_VARIABLE) or f"process {os.getpid()}"
        self._seen: tuple[str, float] | None = None

    def _content(self) -> bytes:
        return json.dumps({"holder": self._name, "beat": secrets.token_hex(8)}).encode()

    def take(self) -> bool:
        """Take the claim where there is none, or where it was not renewed for STALE_SECONDS."""
        if self.storage.write_bytes(self.uri, self._content(), if_absent=True):
            return True
        entry = self.storage.stat(self.uri)
        if entry is None:
            return False
        if self._seen is None or self._seen[0] != entry.etag:
            self._seen = entry.etag, time.monotonic()
            self.holder = json.loads(self.storage.read_bytes(self.uri) or b"{}").get("holder", self.holder)
            return False
        if time.monotonic() - self._seen[1] < STALE_SECONDS:
            return False
        log.warning("the import by %s stands still; taking it over", self.holder)
        return self.storage.replace_bytes(self.uri, self._content(), entry.etag)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Renew the claim while the body runs, then remove it."""
        done = threading.Event()
        thread = threading.Thread(target=self._renew, args=(done,), name="claim", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self.storage.delete(self.uri)

    def _renew(self, done: threading.Event) -> None:
        while not done.wait(RENEW_SECONDS):
            try:
                entry = self.storage.stat(self.uri)
                if entry is None or not self.storage.replace_bytes(self.uri, self._content(), entry.etag):
                    log.warning("the claim %s was lost; going on, as the result is the same", self.uri)
                    return
            except RunFailure as failure:
                log.warning("the claim could not be renewed: %s", failure.message)
