"""FineTuneJobs in files of manifests, and why the API or this version refuses them.

The CEL rules of the CRDs are not evaluated here, but for those without which a job names no model or no rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import yaml
from pydantic import ValidationError

from tunesmith_api.base import ApiModel, api_type_in
from tunesmith_api.compatibility import refusals
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.refusal import Refusal

KIND = "FineTuneJob"
MODEL_SOURCES = ("name", "uri", "fine_tune_job", "inference_service")
DATA_SOURCES = ("name", "uri")


@dataclass(frozen=True)
class JobFile:
    """A FineTuneJob of a file."""

    name: str
    spec: FineTuneJobSpec | None
    """None if the spec does not have the types of the API."""
    refused: tuple[Refusal, ...]
    """Why it is refused, each with its field."""


def read_jobs(path: Path) -> list[JobFile]:
    """Return the FineTuneJobs in a file of YAML or JSON, with one or several documents. Raises click.ClickException if there are none."""
    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8-sig")))
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise click.ClickException(f"{path}: {error}") from error
    found = [each for each in _objects(documents) if each.get("kind") == KIND]
    if not found:
        raise click.ClickException(f"{path}: no {KIND} in the file")
    return [_job(each) for each in found]


def _objects(documents: list[Any]) -> Iterator[Mapping[str, Any]]:
    """The objects of documents, which may be of kind List."""
    for each in documents:
        if isinstance(each, Mapping):
            yield from _objects(each["items"]) if isinstance(each.get("items"), list) else [each]


def _job(manifest: Mapping[str, Any]) -> JobFile:
    metadata = manifest.get("metadata")
    name = str((metadata.get("name") if isinstance(metadata, Mapping) else None) or "without a name")
    spec = manifest.get("spec") or {}
    refused = [
        Refusal(f"spec.{path}: unknown field", "correct or remove it") for path in unknown(FineTuneJobSpec, spec)
    ]
    try:
        typed = FineTuneJobSpec.model_validate(spec)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        # The messages of the API's own types have the fix.
        refused += [Refusal(f"{_field(each['loc'])}: {each['msg']}", "") for each in details]
        return JobFile(name, None, tuple(refused))
    return JobFile(name, typed, (*refused, *_sources(typed), *refusals(KIND, typed.to_dict())))


def _field(parts: tuple[str | int, ...]) -> str:
    return "spec" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)


def _sources(spec: FineTuneJobSpec) -> Iterator[Refusal]:
    """Yield the blocks that name no source, or several."""
    blocks: list[tuple[str, ApiModel, tuple[str, ...]]] = [("spec.model", spec.model, MODEL_SOURCES)]
    blocks += [(f"spec.datasets[{index}]", each, DATA_SOURCES) for index, each in enumerate(spec.datasets)]
    further = (spec.validation.datasets if spec.validation else None) or []
    blocks += [(f"spec.validation.datasets[{index}]", each, DATA_SOURCES) for index, each in enumerate(further)]
    for field, block, names in blocks:
        given = sum(getattr(block, name) is not None for name in names)
        if given != 1:
            aliases = ", ".join(str(type(block).model_fields[name].alias) for name in names)
            yield Refusal(f"{field}: {given} of {aliases} are set", f"set exactly one of {aliases} in {field}")


def unknown(type_: type[ApiModel], value: Any, path: str = "") -> Iterator[str]:
    """Yield the paths in `value` that `type_` does not have, as the API server rejects them."""
    if not isinstance(value, Mapping):
        return
    types = {field.alias: field.annotation for field in type_.model_fields.values()}
    for key, item in value.items():
        if key not in types:
            yield f"{path}{key}"
        elif inner := api_type_in(types[key]):
            for index, each in enumerate(item if isinstance(item, list) else [item]):
                place = f"{path}{key}[{index}]" if isinstance(item, list) else f"{path}{key}"
                yield from unknown(inner, each, f"{place}.")


def print_refusals(name: str, refused: tuple[Refusal, ...]) -> None:
    """Print why a job is refused, with the fix."""
    for each in refused:
        click.echo(f"{name}: {each.message}" + (f"\n  fix: {each.hint}" if each.hint else ""), err=True)
