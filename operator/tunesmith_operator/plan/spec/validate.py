"""Spec refusals: what neither the schema nor CEL could know, as sentences."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import ValidationError

from tunesmith_api.base import ApiModel
from tunesmith_api.compatibility import URI_FIELDS, refusals, values_at
from tunesmith_api.grammar import ADMITTED
from tunesmith_operator.plan.config import OperatorConfig
from tunesmith_operator.plan.spec.policy import against_policy
from tunesmith_operator.plan.spec.references import Refused
from tunesmith_operator.plan.types import Raw

OTHER_SCHEMA = "the API server has taken it, so the CRDs are of another version than this operator: bring both to one by helm upgrade"

Spec = TypeVar("Spec", bound=ApiModel)


def typed(type_: type[Spec], resource: Raw) -> Spec | Refused:
    """The typed spec; refused where the API server's schema is not the one of this operator."""
    try:
        return type_.model_validate(resource.get("spec") or {}, context=ADMITTED)
    except ValidationError as error:
        return Refused("; ".join((*_sentences(error), OTHER_SCHEMA)))


def unacceptable(kind: str, spec: ApiModel, config: OperatorConfig, namespace: str) -> list[str]:
    """All that is wrong with a spec of the right form: what this version cannot do, and what this cluster may not."""
    data = spec.to_dict()
    return [
        *_ungrammatical(type(spec), data),
        *map(str, refusals(kind, data)),
        *_untrusted(data, config),
        *against_policy(data, config, namespace),
        *_local(kind, data, config),
    ]


def _ungrammatical(type_: type[ApiModel], data: dict[str, Any]) -> Iterable[str]:
    """Texts that this version's CRDs would refuse: those of an older release may have admitted them."""
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
                f"{field}.trustRemoteCode: this operator does not allow it; remove it, "
                "or have an administrator set allowTrustRemoteCode in the chart's values"
            )


def _local(kind: str, spec: dict[str, Any], config: OperatorConfig) -> Iterable[str]:
    if config.store.uri.startswith("file://"):
        return
    for uri in (uri for row, field in URI_FIELDS if row == kind for uri in values_at(spec, field)):
        if str(uri).startswith("file://"):
            yield f"{uri}: pods do not see files of your machine; put it in object storage and name it by s3://"
