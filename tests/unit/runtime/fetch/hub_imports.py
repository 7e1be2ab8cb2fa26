"""Imports of a hub's model into a store, without the checks of the model, which need torch; also as a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Iterator, Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from tests.hub_server import Hub as HubServer
from tests.hub_server import hub
from tunesmith_api.run import Hub, HubName, Store
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch import imports
from tunesmith_runtime.fetch.hub import Download
from tunesmith_runtime.fetch.import_parts import Parts
from tunesmith_runtime.fetch.imports import MODELS, import_once
from tunesmith_runtime.storage import join, open_storage

KEY = "0123456789abcdef"
SCHEMES = ["hf", "ms"]
SCHEMES_BY_PROCESS = ["hf", pytest.param("ms", marks=pytest.mark.deep)]
"""For tests that start a process for each fetch, which takes seconds; the clients of both hubs are tested without."""
SHARDS = {f"model-{number}.safetensors": random.Random(number).randbytes(200_000) for number in range(4)}
LARGE = {"config.json": b'{"model_type": "llama"}', "tokenizer.json": b'{"a": 1}', **SHARDS}
"""Four shards of 200 kB, and two small files."""
URI = "{}://org/large"
NAMES = {"hf": HubName.HUGGING_FACE, "ms": HubName.MODEL_SCOPE}

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.unit.runtime.fetch.hub_imports", "huggingface_hub", "modelscope_hub", "boto3"])


def servers(scheme: str, *urls: str) -> Hub:
    """The chart's settings with those servers of a hub."""
    return Hub(endpoints={NAMES[scheme]: list(urls)})


def import_model(store: Store, scratch: Path, uri: str, settings: Hub) -> tuple[str, str]:
    """Import a model; return URI and digest."""
    storage = open_storage(store)
    parts = Parts(storage, join(store.uri, MODELS, KEY))

    def make(folder: Path) -> dict[str, str]:
        return Download(uri, folder, False, False, lambda _: None, parts).run(settings)

    return import_once(storage, store.uri, KEY, uri, scratch, make, parts)


def _run(store: Store, scratch: Path, uri: str, settings: Hub, keys: Mapping[str, str]) -> None:
    os.environ.update(keys)
    constants.HF_HUB_OFFLINE = False  # an evaluation in the parent process sets the variable, which is inherited
    imports.STALE_SECONDS, imports.RENEW_SECONDS, imports.POLL_SECONDS = 0.5, 0.1, 0.05
    import_model(store, scratch, uri, settings)


def start_import(store: Store, scratch: Path, uri: str, settings: Hub) -> ForkServerProcess:
    """Start a process that imports a model, as a pod does."""
    keys = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    process = CONTEXT.Process(target=_run, args=(store, scratch, uri, settings, keys), daemon=True)
    process.start()
    return process


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without tokens and redirections, and with short waits."""
    for name in ("HF_TOKEN", "MODELSCOPE_API_TOKEN", "HF_ENDPOINT", "MODELSCOPE_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(imports, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(imports, "STALE_SECONDS", 0.5)
    monkeypatch.setattr(imports, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr("modelscope_hub._download.DOWNLOAD_INTEGRITY_RETRY_BACKOFF", 0.01)
    monkeypatch.setattr("modelscope_hub._download.DOWNLOAD_RETRY_TIMES", 2)
    monkeypatch.setattr("modelscope_hub._legacy_api.REPO_TREE_PAGE_RETRY_MAX_DELAY_SECONDS", 1)
    monkeypatch.setattr("modelscope_hub.config._default_config", None)
    clock = SimpleNamespace(sleep=lambda seconds: None, time=time.time, monotonic=time.monotonic)
    for module in ("utils._http", "file_download"):
        monkeypatch.setattr(f"huggingface_hub.{module}.time", clock)


@pytest.fixture
def large(quick: None) -> Iterator[HubServer]:
    """A hub with a model of several files."""
    with hub({"org/large": LARGE}) as server:
        yield server


@pytest.fixture
def folder_store(quick: None, tmp_path: Path) -> Store:
    """A store in a folder, for promises that do not depend on the kind of the store."""
    return Store(uri=f"file://{tmp_path}/store")


def failure_of(store: Store, scratch: Path, scheme: str, *urls: str, name: str = "org/large") -> RunFailure:
    """The failure with which an import from those servers ends."""
    with pytest.raises(RunFailure) as caught:
        import_model(store, scratch, f"{scheme}://{name}", servers(scheme, *urls))
    assert not scratch.exists()
    return caught.value


def content_of(store: Store, uri: str) -> dict[str, bytes]:
    """The files of a folder of the store, without its manifest."""
    storage = open_storage(store)
    return {
        entry.path: storage.read_bytes(join(uri, entry.path)) or b""
        for entry in storage.list(uri)
        if entry.path != "manifest.json"
    }
