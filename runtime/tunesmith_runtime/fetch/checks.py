"""Checks of downloaded models. The store records by digest which content has passed, so that each is checked once."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from functools import partial

from tunesmith_api.hashing import digest
from tunesmith_api.inferenceservice import Engine
from tunesmith_api.run import ADAPTER_ROLES, ModelRole, RunSpec
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch.imports import MODELS
from tunesmith_runtime.fetch.models import Model, task_in
from tunesmith_runtime.modelcheck import VERSION, check_files, check_fit, check_model
from tunesmith_runtime.modelcheck.adapters import ADAPTER_CONFIG, adapter_config, check_kind
from tunesmith_runtime.modelcheck.files import parse_json
from tunesmith_runtime.modelcheck.tokenizer_files import TOKENIZER
from tunesmith_runtime.modelcheck.vocabularies import check_equal, tokens_of
from tunesmith_runtime.serve.config import engine_of
from tunesmith_runtime.storage import Storage, join
from tunesmith_runtime.tasks import LANGUAGE

log = logging.getLogger(__name__)

CHECKED = "checked"


def loading_engine(spec: RunSpec) -> Engine:
    """Return the engine that loads the model. A training loads it with transformers."""
    return Engine.TRANSFORMERS if spec.kind == "FineTuneJob" else engine_of(spec)


def is_lenient(spec: RunSpec) -> bool:
    """Whether an engine other than transformers loads the model; such an engine decides itself what it can load."""
    return loading_engine(spec) is not Engine.TRANSFORMERS


def check_all(
    storage: Storage,
    spec: RunSpec,
    model: Model,
    adapters: Mapping[str, Model] | None = None,
    further: Mapping[ModelRole, Model] | None = None,
) -> None:
    """Check a downloaded model, each adapter against it, and the models in further roles.

    Raises RunFailure (BadModel, ModelNotFound; BadSpec for an adapter that the engine does not serve).
    """
    base, engine = model.base or model, loading_engine(spec)
    served = {**(adapters or {}), **({spec.name: model} if model.base else {})}
    continued = {str(role): each for role, each in (further or {}).items() if role in ADAPTER_ROLES}
    passed = _PassedChecks(storage, spec.store.uri)
    check_base = partial(check_model, base.source, base.directory, base.trusted, is_lenient(spec))
    is_whole = passed.check_once([base.digest], check_base)
    for name, adapter in {**served, **continued}.items():
        check_files(adapter.source, adapter.directory)
        if name in served:
            check_kind(name, adapter_config(name, adapter.directory), engine, is_alone=len(served) == 1)
        if is_whole:
            is_mixed = name in served and engine is Engine.TRANSFORMERS
            check = partial(check_fit, name, adapter.directory, base.directory, is_mixed)
            passed.check_once([base.digest, adapter.digest, *(["mixed"] if is_mixed else [])], check)
    for role, each in (further or {}).items():
        if role not in ADAPTER_ROLES:
            task = task_in(role)
            content = [each.digest, *([] if task is LANGUAGE else [task.auto_class])]
            passed.check_once(content, partial(check_model, each.source, each.directory, each.trusted, False, task))


def check_served(storage: Storage, spec: RunSpec, model: Model) -> None:
    """Check that the engine serves the model if it is an adapter in the store, by its configuration alone.

    Raises RunFailure (BadSpec, BadModel).
    """
    if model.base is None or model.uri is None:
        return
    content = storage.read_bytes(join(model.uri, ADAPTER_CONFIG))
    if content is not None:
        config = parse_json(f"adapter {spec.name}", ADAPTER_CONFIG, content)
        check_kind(spec.name, config, loading_engine(spec), is_alone=True)


def check_vocabularies(storage: Storage, model: Model, further: Mapping[ModelRole, Model]) -> None:
    """Check that a teacher has the tokens of the model, where both are in the store with a tokenizer.json.

    The training compares other tokenizers when it has loaded them. Raises RunFailure (BadSpec).
    """
    teacher = further.get(ModelRole.TEACHER)
    if teacher is None or model.uri is None or teacher.uri is None:
        return
    files = [storage.read_bytes(join(uri, TOKENIZER)) for uri in (model.uri, teacher.uri)]
    try:
        tokens, others = (tokens_of(content or b"") for content in files)
    except ValueError as error:
        log.info("the vocabularies are compared by the training: %s", error)
        return
    check_equal(model.source, tokens, teacher.source, others)


class _PassedChecks:
    """The record of passed checks: an object in the store for each, named by the digests of the checked content."""

    def __init__(self, storage: Storage, store_uri: str) -> None:
        self._storage, self._folder = storage, join(store_uri, MODELS, CHECKED)

    def check_once(self, digests: list[str | None], check: Callable[[], bool]) -> bool:
        """Run `check` unless this content has passed it before. Returns whether it has passed."""
        uri = join(self._folder, f"{digest([VERSION, *digests])[:16]}.json")
        if self._storage.read_bytes(uri) is not None:
            return True
        if not check():
            return False
        try:
            self._storage.write_bytes(uri, json.dumps({"checked": digests}).encode())
        except RunFailure as failure:  # the store may be read-only
            log.warning("cannot record that the model passed its check: %s", failure.message)
        return True
