"""The fields and conditions of status that only an InferenceService has."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith_api.failures import FailureClass
from tunesmith_api.run import RunSpec, Verb
from tunesmith_operator.plan.failures.hints import with_hint
from tunesmith_operator.plan.inferenceservice.context import ServiceContext
from tunesmith_operator.plan.inferenceservice.pod import ROLE
from tunesmith_operator.plan.inferenceservice.promotion import (
    Blocked,
    passes_to_record,
    recorded_passes,
    source_as_recorded,
)
from tunesmith_operator.plan.inferenceservice.versions import version_of
from tunesmith_operator.plan.names import name_of, namespace_of, selector
from tunesmith_operator.plan.phases import Reason
from tunesmith_operator.plan.pods.read import reports
from tunesmith_operator.plan.pods.template import run_spec_of
from tunesmith_operator.plan.spec.references import Refused, Waiting, fetched_model_status, model_status
from tunesmith_operator.plan.status.conditions import WantedCondition
from tunesmith_operator.plan.types import Raw

NO_DIGEST = "by the name of the folder only: it has no manifest, so a change of its content is not noticed"
PIN_HINT = "name a FineTuneJob or a hub model in spec.model to pin the exact weights"


def service_fields(context: ServiceContext) -> Raw:
    """The service's own fields of status."""
    old, target, rollout, resource = context.status, context.target, context.rollout, context.resource
    url = f"http://{name_of(resource)}.{namespace_of(resource)}.svc/v1"
    deployed = run_spec_of(target.template) if target.template else None
    served = _served(context.observed.pods, target.template, rollout.version) if context.is_served else {}
    return {
        "url": url if target.template else old.get("url"),
        "replicas": rollout.total,
        "readyReplicas": rollout.ready,
        "selector": ",".join(f"{name}={value}" for name, value in selector(resource, ROLE).items()),
        **served,
        "engine": deployed.spec.get("engine") if deployed else None,
        "passed": _passes(context, deployed) if deployed else None,
        "rolledBack": context.given_up.to_dict() if context.given_up else None,
        "candidate": _candidate(context),
    }


def service_conditions(context: ServiceContext) -> tuple[WantedCondition, ...]:
    """PromotionBlocked with spec.promotion, and RolledBack once the spec's version was given up."""
    return (*_promotion_condition(context), *_rollback_condition(context))


def _candidate(context: ServiceContext) -> Raw | None:
    """The model that the spec names, unless it is served."""
    target = context.target
    is_in_place = context.is_served or context.status.get("version") == context.rollout.version
    if target.candidate is None or target.candidate_is_deployed or (target.is_requested and is_in_place):
        return None
    return model_status(target.candidate)


def _passes(context: ServiceContext, deployed: RunSpec) -> list[Raw] | None:
    """The verdicts on the deployed model, which count after their EvalJobs are deleted."""
    source = source_as_recorded(deployed.spec.get("model") or {})
    recorded = recorded_passes(context.status, deployed.subject)
    references = context.observed.references
    return passes_to_record(context.spec.promotion, source, deployed.subject, references, recorded) or None


def _served(pods: Sequence[Raw], template: Raw | None, version: str | None) -> Raw:
    """What the version serves, as its pods have read it from the store."""
    run = run_spec_of(template) if template else None
    if run is None:
        return {"version": version}
    own = sorted((pod for pod in pods if version_of(pod) == version), key=name_of)
    fetched = next((report for pod in own if (report := reports(pod).get(Verb.FETCH))), None)
    adapters = [{"name": item.name, "uri": item.model.uri, "digest": item.model.digest} for item in run.adapters]
    return {
        "version": version,
        "model": fetched_model_status(run.subject, fetched),
        "adapters": [{name: value for name, value in adapter.items() if value} for adapter in adapters] or None,
    }


def _promotion_condition(context: ServiceContext) -> tuple[WantedCondition, ...]:
    """PromotionBlocked: an EvalJob has not passed the model that the spec names."""
    type_, promotion, obstacle = "PromotionBlocked", context.spec.promotion, context.target.obstacle
    if promotion is None:
        return ()
    if isinstance(obstacle, Blocked):
        return (WantedCondition(type_, True, Reason.PROMOTION_BLOCKED, obstacle.text),)
    if isinstance(obstacle, Waiting):
        return (WantedCondition(type_, None, obstacle.reason, f"waiting for {obstacle.text}"),)
    if isinstance(obstacle, Refused):
        return (WantedCondition(type_, None, FailureClass.BAD_SPEC, obstacle.text),)
    names = ", ".join(reference.name for reference in promotion.eval_jobs)
    candidate = context.target.candidate
    text = f"passed by EvalJob {names}"
    if not (candidate and candidate.digest):
        text = with_hint(f"{text}, {NO_DIGEST}", PIN_HINT)
    return (WantedCondition(type_, False, Reason.PROMOTED, text),)


def _rollback_condition(context: ServiceContext) -> tuple[WantedCondition, ...]:
    record = context.given_up
    return (WantedCondition("RolledBack", True, Reason.ROLLOUT_TIMEOUT, record.message),) if record else ()
