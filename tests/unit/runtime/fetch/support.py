"""A store with what a fetch asks for, and the fetch itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
from safetensors.numpy import save

from tests.servers import run_spec
from tunesmith_api.hashing import spec_hash
from tunesmith_api.run import RunReport, RunSpec, Store
from tunesmith_runtime import fetch, prepare
from tunesmith_runtime.progress import Progress
from tunesmith_runtime.storage import Storage, join, open_storage
from tunesmith_runtime.work import Work

WEIGHTS = save({"w": numpy.arange(16, dtype=numpy.float32)})
MODEL = {"config.json": b'{"model_type": "llama"}', "model.safetensors": WEIGHTS, "tokenizer.json": b"{}"}
ADAPTER = {"adapter_config.json": b"{}", "adapter_model.safetensors": WEIGHTS}
ROWS = b'{"prompt": "a", "completion": "b"}\n'


class Fetcher:
    """Resources over one store, each fetched into a work directory of its own."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.storage: Storage = open_storage(store)
        self.pods = 0

    def put(self, name: str, files: dict[str, bytes]) -> str:
        """Objects below a folder of the store; its URI."""
        for path, content in files.items():
            self.storage.write_bytes(join(self.store.uri, name, path), content)
        return join(self.store.uri, name)

    def spec(self, kind: str, model: dict[str, Any] | str, spec: dict[str, Any], **fields: Any) -> RunSpec:
        """The RunSpec of a resource of `kind` with that (resolved) model."""
        resolved = {"uri": model} if isinstance(model, str) else model
        whole = {"model": {"uri": resolved["uri"]}, **spec}
        data = run_spec(kind, "demo", whole, specHash=spec_hash(kind, whole), model=resolved, **fields)
        return RunSpec.model_validate(
            {**data, "store": self.store.to_dict(), "outputUri": join(self.store.uri, "runs")}
        )

    def job(self, model: dict[str, Any] | str, *data: str, **spec: Any) -> RunSpec:
        """The RunSpec of a FineTuneJob."""
        return self.spec("FineTuneJob", model, {"datasets": [{"uri": uri} for uri in data], **spec})

    def fetch(self, spec: RunSpec) -> tuple[RunReport, Work]:
        """Fetch in a new pod."""
        work = self._pod()
        return fetch.run(spec, work, Progress(None, None)), work

    def prepare(self, spec: RunSpec) -> tuple[RunReport, Work]:
        """Prepare in a new pod."""
        work = self._pod()
        return prepare.run(spec, work, Progress(None, None)), work

    def _pod(self) -> Work:
        self.pods += 1
        return Work(self.folder / f"pod-{self.pods}")

    def objects(self) -> dict[str, bytes]:
        """All that is in the store."""
        return {
            entry.path: self.storage.read_bytes(join(self.store.uri, entry.path)) or b""
            for entry in self.storage.list(self.store.uri)
        }


def names(directory: Path) -> set[str]:
    """Files of a local folder."""
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}


def lines(path: Path) -> list[dict[str, Any]]:
    """Rows of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]
