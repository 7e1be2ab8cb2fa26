"""Checks that a training continues from an adapter with the chat template of the adapter. Reads only small files."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping

from tunesmith_api.failures import FailureClass
from tunesmith_api.method_facts import METHOD_FACTS
from tunesmith_api.run import ModelRole, RunSpec
from tunesmith_runtime.chat_template import read_template, template_hash
from tunesmith_runtime.data.tokenizer_file import CONFIG, TEMPLATE, template_of
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch.models import Model
from tunesmith_runtime.rundirectory import RECORD
from tunesmith_runtime.storage import Storage, join

log = logging.getLogger(__name__)


def check_template(storage: Storage, spec: RunSpec, base: Model, further: Mapping[ModelRole, Model]) -> None:
    """Refuse a base with another chat template than the adapter of lora.from was trained with, where both are known. A template that
    the spec names is accepted, with a warning in the log if it differs.

    Raises RunFailure (BadSpec).
    """
    initial = further.get(ModelRole.INITIAL)
    if initial is None or initial.uri is None or METHOD_FACTS[spec.fine_tune_job().method].is_plain_text:
        return
    chosen, learned = read_template(spec), _recorded(storage, initial.uri)
    own = template_in(storage, base.uri) if base.uri and chosen is None else chosen
    if own is None or learned is None or template_hash(own) == learned:
        return
    differs = (
        f"the adapter of lora.from, {initial.source}, was trained with another chat template (sha256 {learned[:12]})"
    )
    if chosen is not None:
        log.warning("%s than training.chatTemplate (%s)", differs, template_hash(own)[:12])
        return
    raise RunFailure(
        FailureClass.BAD_SPEC,
        f"{differs} than that of {base.source} ({template_hash(own)[:12]}), in which rows would be rendered",
        f"set spec.training.chatTemplate to the adapter's template ({join(initial.uri, TEMPLATE)}), or to the model's to change it on purpose",
    )


def _recorded(storage: Storage, uri: str) -> str | None:
    """Return the sha256 of the template that an adapter was trained with, from its folder or from the record of its run."""
    if (template := template_in(storage, uri)) is not None:
        return template_hash(template)
    record = _json(storage, join(uri.rstrip("/").rpartition("/")[0], RECORD))
    found = record.get("templateHash")
    return found if isinstance(found, str) else None


def template_in(storage: Storage, uri: str) -> str | None:
    """Return the chat template of the tokenizer in a folder of the store; None if it has none."""
    content = storage.read_bytes(join(uri, TEMPLATE))
    return template_of(_json(storage, join(uri, CONFIG))) if content is None else content.decode(errors="replace")


def _json(storage: Storage, uri: str) -> Mapping[str, object]:
    """Return the object in a JSON file; an empty object if the file cannot be read."""
    try:
        found = json.loads(storage.read_bytes(uri) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
