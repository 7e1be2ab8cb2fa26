"""The chat template of `training.chatTemplate`, which replaces that of the model's tokenizer."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from tunesmith_api.failures import FailureClass
from tunesmith_api.run import RunSpec
from tunesmith_runtime.errors import RunFailure


def template_hash(template: str) -> str:
    """Return the sha256 of a template, as run.json has it."""
    return sha256(template.encode()).hexdigest()


def read_template(spec: RunSpec) -> str | None:
    """Return the template that the spec gives, or None. Raises RunFailure (BadSpec) if it is empty or not text."""
    if spec.chat_template_file is None:
        return None
    try:
        # A byte order mark would begin every prompt.
        text = Path(spec.chat_template_file).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise bad_template(spec, f"is not text in UTF-8: {error}") from error
    if not text.strip():
        raise bad_template(spec, "is empty")
    return text


def template_fingerprint(spec: RunSpec) -> dict[str, str]:
    """Return the fingerprint of the template that the spec gives: another text in the ConfigMap makes another run."""
    text = read_template(spec)
    return {} if text is None else {"chatTemplate": template_hash(text)}


def bad_template(spec: RunSpec, problem: str) -> RunFailure:
    """The failure of a template that cannot be used."""
    source = spec.fine_tune_job().training.chat_template
    where = f"key {source.config_map.key} of ConfigMap {source.config_map.name}" if source else spec.chat_template_file
    return RunFailure(
        FailureClass.BAD_SPEC, f"training.chatTemplate: {where} {problem}", f"correct {where}, and apply the job again"
    )
