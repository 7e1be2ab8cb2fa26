"""Which checks a model that was brought needs, and which were made before: the store remembers what passed, by its digest."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from functools import partial

from tunesmith_api.hashing import digest
from tunesmith_api.inferenceservice import Engine
from tunesmith_api.run import RunSpec
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch.imports import MODELS
from tunesmith_runtime.fetch.models import Model
from tunesmith_runtime.modelcheck import VERSION, check_files, check_fit, check_model
from tunesmith_runtime.serve.config import engine_of
from tunesmith_runtime.storage import Storage, join

log = logging.getLogger(__name__)

CHECKED = "checked"


def is_lenient(spec: RunSpec) -> bool:
    """Whether the model is loaded by an engine other than transformers, which decides itself what it can load."""
    return spec.kind != "FineTuneJob" and engine_of(spec) is not Engine.TRANSFORMERS


def check_all(storage: Storage, spec: RunSpec, model: Model, adapters: Mapping[str, Model] | None = None) -> None:
    """Check a model that was brought, and each adapter against it. Raises RunFailure (BadModel, ModelNotFound)."""
    base, on_it = model.base or model, dict(adapters or {})
    if model.base:
        on_it[spec.name] = model
    known = _Known(storage, spec.store.uri)
    check_base = partial(check_model, base.source, base.directory, base.trusted, is_lenient(spec))
    is_whole = known.once([base.digest], check_base)
    for name, adapter in on_it.items():
        check_files(adapter.source, adapter.directory)
        if is_whole:
            check = partial(check_fit, name, adapter.directory, base.directory)
            known.once([base.digest, adapter.digest], check)


class _Known:
    """Record of passed checks: one object in the store for each, named by the digests of the checked content."""

    def __init__(self, storage: Storage, store_uri: str) -> None:
        self._storage, self._folder = storage, join(store_uri, MODELS, CHECKED)

    def once(self, digests: list[str | None], check: Callable[[], bool]) -> bool:
        """Check what was not checked before; whether all of it is checked now."""
        uri = join(self._folder, f"{digest([VERSION, *digests])[:16]}.json")
        if self._storage.read_bytes(uri) is not None:
            return True
        if not check():
            return False
        try:
            self._storage.write_bytes(uri, json.dumps({"checked": digests}).encode())
        except RunFailure as failure:  # a store that may only be read
            log.warning("the check is not remembered: %s", failure.message)
        return True
