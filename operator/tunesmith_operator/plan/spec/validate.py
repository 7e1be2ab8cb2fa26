"""Validation of a spec beyond schema and CEL: settings of this version and this cluster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from tunesmith_api.base import ApiModel
from tunesmith_api.compatibility import refusals
from tunesmith_api.grammar import ADMITTED
from tunesmith_api.refusal import Refusal, combine
from tunesmith_api.spec_fields import URI_FIELDS, values_at
from tunesmith_operator.plan.config import OperatorConfig
from tunesmith_operator.plan.spec.policy import policy_refusals
from tunesmith_operator.plan.spec.references import Refused
from tunesmith_operator.plan.types import Raw

OTHER_SCHEMA = Refusal(
    "the API server admitted it, so the CRDs and the operator have different versions",
    "run helm upgrade to bring the CRDs and the operator to the same version",
)

Spec = TypeVar("Spec", bound=ApiModel)


def parse_spec(type_: type[Spec], resource: Raw) -> Spec | Refused:
    """Return the spec as its type; refused if the CRDs in the cluster differ from those of this operator."""
    try:
        return type_.model_validate(resource.get("spec") or {}, context=ADMITTED)
    except ValidationError as error:
        return as_refused([*_invalid_fields(error), OTHER_SCHEMA])


def as_refused(refusals: Sequence[Refusal]) -> Refused:
    """Return several refusals as one."""
    refusal = combine(refusals)
    return Refused(refusal.message, refusal.hint)


def spec_refusals(kind: str, spec: ApiModel, config: OperatorConfig, namespace: str) -> list[Refusal]:
    """Return why this version or this cluster refuses a spec; empty if it does not."""
    data = spec.to_dict()
    return [
        *_rejected_by_current_schema(type(spec), data),
        *refusals(kind, data),
        *_untrusted(data, config),
        *policy_refusals(data, config, namespace),
        *_local_files(kind, data, config),
    ]


def _rejected_by_current_schema(type_: type[ApiModel], data: dict[str, Any]) -> Iterable[Refusal]:
    """Yield what the CRDs of this version would reject: those of an older release may have admitted it."""
    try:
        type_.model_validate(data)
    except ValidationError as error:
        yield from _invalid_fields(error)


def _invalid_fields(error: ValidationError) -> Iterable[Refusal]:
    """Yield the invalid fields. The messages of the schema's validators contain the fix."""
    for detail in error.errors(include_url=False, include_input=False)[:8]:
        yield Refusal(f"spec.{'.'.join(map(str, detail['loc']))}: {detail['msg']}", "")


def _untrusted(spec: dict[str, Any], config: OperatorConfig) -> Iterable[Refusal]:
    for field in ("model", "baseline"):
        if (spec.get(field) or {}).get("trustRemoteCode") and not config.allow_trust_remote_code:
            yield Refusal(
                f"{field}.trustRemoteCode: this operator does not allow code of models",
                f"remove spec.{field}.trustRemoteCode, or ask an administrator to set allowTrustRemoteCode in the chart's values",
            )


def _local_files(kind: str, spec: dict[str, Any], config: OperatorConfig) -> Iterable[Refusal]:
    if config.store.uri.startswith("file://"):
        return
    for uri in (uri for row, field in URI_FIELDS if row == kind for uri in values_at(spec, field)):
        if str(uri).startswith("file://"):
            yield Refusal(
                f"{uri}: pods cannot read files of your machine", "upload it to object storage and name its s3:// URI"
            )
