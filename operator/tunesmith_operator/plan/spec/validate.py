"""Validation of a spec beyond schema and CEL: settings of this version and this cluster."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import ValidationError

from tunesmith_api.base import ApiModel
from tunesmith_api.compatibility import URI_FIELDS, refusals, values_at
from tunesmith_api.grammar import ADMITTED
from tunesmith_operator.plan.config import OperatorConfig
from tunesmith_operator.plan.spec.policy import policy_refusals
from tunesmith_operator.plan.spec.references import Refused
from tunesmith_operator.plan.types import Raw

OTHER_SCHEMA = "the API server admitted it, so the CRDs and the operator have different versions: run helm upgrade to bring them to one version"

Spec = TypeVar("Spec", bound=ApiModel)


def parse_spec(type_: type[Spec], resource: Raw) -> Spec | Refused:
    """Return the spec as its type; refused if the CRDs in the cluster differ from those of this operator."""
    try:
        return type_.model_validate(resource.get("spec") or {}, context=ADMITTED)
    except ValidationError as error:
        return Refused("; ".join((*_sentences(error), OTHER_SCHEMA)))


def spec_refusals(kind: str, spec: ApiModel, config: OperatorConfig, namespace: str) -> list[str]:
    """Return why this version or this cluster refuses a spec, as messages; empty if it does not."""
    data = spec.to_dict()
    return [
        *_rejected_by_current_schema(type(spec), data),
        *map(str, refusals(kind, data)),
        *_untrusted(data, config),
        *policy_refusals(data, config, namespace),
        *_local_files(kind, data, config),
    ]


def _rejected_by_current_schema(type_: type[ApiModel], data: dict[str, Any]) -> Iterable[str]:
    """Yield what the CRDs of this version would reject: those of an older release may have admitted it."""
    try:
        type_.model_validate(data)
    except ValidationError as error:
        yield from _sentences(error)


def _sentences(error: ValidationError) -> Iterable[str]:
    for detail in error.errors(include_url=False, include_input=False)[:8]:
        yield f"spec.{'.'.join(map(str, detail['loc']))}: {detail['msg']}"


def _untrusted(spec: dict[str, Any], config: OperatorConfig) -> Iterable[str]:
    for field in ("model", "baseline"):
        if (spec.get(field) or {}).get("trustRemoteCode") and not config.allow_trust_remote_code:
            yield (
                f"{field}.trustRemoteCode: this operator does not allow code of models; remove it, "
                "or have an administrator set allowTrustRemoteCode in the chart's values"
            )


def _local_files(kind: str, spec: dict[str, Any], config: OperatorConfig) -> Iterable[str]:
    if config.store.uri.startswith("file://"):
        return
    for uri in (uri for row, field in URI_FIELDS if row == kind for uri in values_at(spec, field)):
        if str(uri).startswith("file://"):
            yield f"{uri}: pods cannot read files of your machine; upload it to object storage and write its s3:// URI"
