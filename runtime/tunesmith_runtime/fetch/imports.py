"""Imports each model from a hub or in GGUF into the store once, for all pods.

<store>/models/<key>/model.json names the folder of the finished import. It is written last, and only if it does not exist. A
claim object keeps other pods from doing the same work. Its holder renews it, and another pod takes over a claim that is
not renewed. The claim only saves work: if two pods import at the same time, each writes a folder named by the digest of
its content, and the first model.json wins. An import that ends before that leaves the files that it has finished (see
import_parts.py), and the next one continues with them.
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

from tunesmith_api.failures import FailureClass
from tunesmith_api.hashing import digest
from tunesmith_api.run import POD_NAME_VARIABLE
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch.import_parts import Parts
from tunesmith_runtime.storage import Storage, join
from tunesmith_runtime.storage.directory import delete_directory, publish_directory

log = logging.getLogger(__name__)

MODELS, POINTER, CLAIM = "models", "model.json", "claim.json"
RENEW_SECONDS = 10.0
STALE_SECONDS = 60.0
POLL_SECONDS = 2.0
AT_FAULT = (FailureClass.BAD_MODEL, FailureClass.UNSAFE_WEIGHTS, FailureClass.MODEL_NOT_FOUND)
"""Failures that every further attempt has as well: no parts are left for one."""

Make = Callable[[Path], Mapping[str, str] | None]
"""Writes a model to a local folder, and returns what model.json records of its origin."""


def key_of(source: str, revision: str, trusted: bool = False, server: Mapping[str, str] | None = None) -> str:
    """The key of an imported model: equal for the same source and revision (a hub's, or a file's fingerprint).

    `server` has the settings that redirect the hub's client to another server (`hub.redirection`): a model from there is
    never used in place of the hub's model of the same name. The servers in hub.endpoints of the chart's values are not among
    them: which of them has served a model must not decide which model a URI stands for.
    """
    more = {"code": True} if trusted else {}
    return digest({"source": source, "revision": revision, **more, **({"server": dict(server)} if server else {})})[:16]


def imported(storage: Storage, store_uri: str, key: str) -> tuple[str, str] | None:
    """URI and digest of the finished import with that key; None if there is none."""
    content = storage.read_bytes(join(store_uri, MODELS, key, POINTER))
    if content is None:
        return None
    pointer = json.loads(content)
    return pointer["uri"], pointer["digest"]


def import_once(
    storage: Storage, store_uri: str, key: str, source: str, scratch: Path, make: Make, parts: Parts | None = None
) -> tuple[str, str]:
    """Return URI and digest of the model with that key. Unless another pod imports it, `make` writes it to `scratch`, where it stays.

    `parts`: the finished files of earlier attempts, if `make` uses them.
    """
    folder = join(store_uri, MODELS, key)
    claim = _Claim(storage, join(folder, CLAIM))
    is_logged = False
    while (found := imported(storage, store_uri, key)) is None:
        if claim.take():
            with claim.renewed():  # the previous holder may have finished since `imported` was read
                return imported(storage, store_uri, key) or _import(storage, folder, source, scratch, make, parts)
        if not is_logged:
            log.info("%s is being imported by %s; waiting for it", source, claim.holder)
            is_logged = True
        time.sleep(POLL_SECONDS)
    if parts is not None and storage.stat(claim.uri) is not None:
        _clean_up(claim, parts)
    return found


def _clean_up(claim: _Claim, parts: Parts) -> None:
    """Delete the remains of a pod that was killed after it had written model.json."""
    parts.delete()
    try:
        claim.storage.delete(claim.uri)
    except RunFailure as failure:  # the store may be read-only
        log.warning("cannot delete the claim %s: %s", claim.uri, failure.message)


def _import(
    storage: Storage, folder: str, source: str, scratch: Path, make: Make, parts: Parts | None
) -> tuple[str, str]:
    """Import the model and write model.json. If another pod has written it first, delete our copy and return that pod's."""
    log.info("importing %s into %s", source, folder)
    started = time.monotonic()
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        origin = make(scratch) or {}
        model = publish_directory(storage, scratch, folder, "model", parts.present if parts else {})
    except BaseException as error:
        shutil.rmtree(scratch, ignore_errors=True)
        if parts is not None and isinstance(error, RunFailure) and error.failure in AT_FAULT:
            parts.delete()
        raise
    ours = {"uri": model.uri, "digest": model.digest, "source": source, **origin}
    pointer = json.loads(storage.write_once(join(folder, POINTER), json.dumps(ours, indent=1).encode()))
    if pointer["uri"] != model.uri:
        log.info("another pod has imported the model first: %s", pointer["uri"])
        delete_directory(storage, model.uri)
    if parts is not None:
        parts.delete()
    log.info("imported %s in %.0f s", source, time.monotonic() - started)
    return pointer["uri"], pointer["digest"]


class _Claim:
    """An object that names the pod at work. This pod's own clock measures how long it has not changed."""

    def __init__(self, storage: Storage, uri: str) -> None:
        self.storage, self.uri = storage, uri
        self.holder = "another pod"
        self._name = os.environ.get(POD_NAME_VARIABLE) or f"process {os.getpid()}"
        self._unchanged_since: tuple[str, float] | None = None

    def _content(self) -> bytes:
        return json.dumps({"holder": self._name, "beat": secrets.token_hex(8)}).encode()

    def take(self) -> bool:
        """Take the claim if it is free, or if it was not renewed for STALE_SECONDS. Returns whether it is taken."""
        if self.storage.write_bytes(self.uri, self._content(), if_absent=True):
            return True
        entry = self.storage.stat(self.uri)
        if entry is None:
            return False
        if self._unchanged_since is None or self._unchanged_since[0] != entry.etag:
            self._unchanged_since = entry.etag, time.monotonic()
            self.holder = json.loads(self.storage.read_bytes(self.uri) or b"{}").get("holder", self.holder)
            return False
        if time.monotonic() - self._unchanged_since[1] < STALE_SECONDS:
            return False
        log.warning("the import by %s is not making progress; taking it over", self.holder)
        return self.storage.replace_bytes(self.uri, self._content(), entry.etag)

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Renew the claim within the block, then delete it."""
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
                    log.warning("lost the claim %s to another pod; continuing, as the result is the same", self.uri)
                    return
            except RunFailure as failure:
                log.warning("cannot renew the claim %s: %s", self.uri, failure.message)
