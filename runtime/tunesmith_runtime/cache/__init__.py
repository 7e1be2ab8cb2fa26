"""The cache of model files that the pods of a node, or of a namespace, share. It only saves transfers: a run never fails for it.

Layout of its folder:

    lock               held (flock) while leases are written and files are evicted
    leases/HOLDER      the files that a pod uses, by sha256, with their sizes; its modification time is when it ends
    blobs/SHA256/data  a file, named by its content, and next to it
    blobs/SHA256/verified-BOOT
                       inode, modification time and size with which its sha256 was verified since the node has booted
    incoming/SHA256/   a file that is being downloaded or copied; an interrupted download is resumed
    locks/XX           held (flock) while a file whose sha256 begins with XX is verified or added
    names/KEY          the sha256 of an object of a store that has no manifest, by its URI and etag

`fetch` links files of the cache into the work directory instead of copying them. All other containers mount the cache
read-only, and leases/ for writing, so that they renew their lease while they run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunesmith_api.failures import FailureClass
from tunesmith_api.run import POD_NAME_VARIABLE, RunSpec, Verb
from tunesmith_runtime.cache.blobs import Blobs
from tunesmith_runtime.cache.download import Cache
from tunesmith_runtime.cache.leases import Leases
from tunesmith_runtime.cache.names import Names
from tunesmith_runtime.disk_space import bytes_of
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.workdir import Work


def open_cache(spec: RunSpec) -> Cache | None:
    """Return the cache of a run for its fetch container; None if it has none, or none that works."""
    if spec.cache is None:
        return None
    root = Path(spec.cache.path)
    cache = Cache(
        root=root,
        blobs=Blobs(root),
        leases=Leases(root / "leases", holder_of(spec)),
        names=Names(root / "names", spec.namespace, spec.store.endpoint),
        limit_bytes=bytes_of(spec.cache.max_bytes) if spec.cache.max_bytes else None,
    )
    return cache if cache.prepare() else None


def holder_of(spec: RunSpec) -> str:
    """Return the name of this pod's lease."""
    return f"{spec.namespace}.{os.environ.get(POD_NAME_VARIABLE) or f'{spec.name}-{os.getpid()}'}"


@contextmanager
def cache_in_use(verb: Verb, spec: RunSpec, work: Work) -> Iterator[None]:
    """Keep the files of the cache that this pod uses while a verb runs. Raises RunFailure (StorageCorrupt) if one is gone."""
    if spec.cache is None or verb in (Verb.PREPARE, Verb.FETCH):
        yield
        return
    with Leases(Path(spec.cache.leases), holder_of(spec)).renewed():
        _check_links(work)
        yield


def _check_links(work: Work) -> None:
    for path in work.root.rglob("*"):
        if path.is_symlink() and not path.exists():
            raise RunFailure(
                FailureClass.STORAGE_CORRUPT,
                f"{path}: the file is gone from the cache ({path.readlink()})",
                "delete the pod: the next one fetches the model again",
            )
