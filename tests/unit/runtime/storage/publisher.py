"""A process that publishes a folder and is killed on the way, for tests of interrupted uploads."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tunesmith_api.run import Store
from tunesmith_runtime.storage import open_storage
from tunesmith_runtime.storage.directory import publish_directory
from tunesmith_runtime.storage.parts import PartBody
from tunesmith_runtime.storage.s3 import S3
from tunesmith_runtime.storage.s3 import uploads as module

PART_BYTES = 5 << 20
"""The smallest that S3 allows."""
NAME = "merged"


def small_parts() -> None:
    """Let uploads in this process have small parts."""
    module.PART_BYTES = PART_BYTES
    module.SINGLE_BYTES = 2 * PART_BYTES


def on_requests(storage_backend: S3, call: Callable[..., Any]) -> None:
    """Call `call` with `request` and `event_name` before each request of the backend."""
    for client in (storage_backend._client, storage_backend._content.client):
        client.meta.events.register("before-send.s3", lambda request, event_name, **_: call(request, event_name))


def publish(store: Store, folder: Path, environment: Mapping[str, str], moments: Any, deadly: int) -> None:
    """Publish the folder. The process kills itself at its moment `deadly`: a request, or a block of a body that is read.

    `moments` counts them, for a process that lives.
    """
    os.environ.update(environment)
    small_parts()
    lock = threading.Lock()

    def count(*_: Any) -> None:
        with lock:
            moments.value += 1
            if moments.value == deadly:
                os.kill(os.getpid(), signal.SIGKILL)

    read = PartBody.read

    def counted_read(body: PartBody, size: int = -1) -> memoryview:
        count()
        return read(body, size)

    PartBody.read = counted_read  # type: ignore[method-assign]
    storage = open_storage(store)
    backend = storage._backend(store.uri)
    assert isinstance(backend, S3)
    on_requests(backend, count)
    publish_directory(storage, folder, store.uri, NAME)


CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])


def run_publisher(store: Store, folder: Path, environment: Mapping[str, str], deadly: int) -> tuple[BaseProcess, int]:
    """Run `publish` in a process until it ends. Return the process and the moments it had."""
    moments = CONTEXT.Value("i", 0, lock=False)
    process = CONTEXT.Process(target=publish, args=(store, folder, dict(environment), moments, deadly))
    process.start()
    process.join(120)
    return process, int(moments.value)
