"""InferenceService: a Deployment and a Service of the newest version that may be served; what served before stays until then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from tunesmith_api.common import LastFailure, ModelSource
from tunesmith_api.failures import FailureClass
from tunesmith_api.inferenceservice import InferenceServiceSpec
from tunesmith_api.run import NamedAdapter, ResolvedModel, RunSpec, Verb
from tunesmith_operator.plan import engines
from tunesmith_operator.plan.check import typed, unacceptable
from tunesmith_operator.plan.conditions import Wanted
from tunesmith_operator.plan.config import OperatorConfig
from tunesmith_operator.plan.containers import condition, is_finished, is_true, reports
from tunesmith_operator.plan.deployment import ROLE, deployment, pod_template, service
from tunesmith_operator.plan.diagnose import failure, is_slow_to_start, why_crashing, why_pending, why_refused
from tunesmith_operator.plan.drift import has
from tunesmith_operator.plan.names import (
    VERSION_ANNOTATION,
    annotation,
    is_deleting,
    key_of,
    metadata,
    name_of,
    namespace_of,
    selector,
)
from tunesmith_operator.plan.phases import Phase, Reason
from tunesmith_operator.plan.pods import run_of
from tunesmith_operator.plan.promotion import Blocked, passed_before, passes, promoted
from tunesmith_operator.plan.references import (
    References,
    Refused,
    Waiting,
    model_as_read,
    model_status,
    named_by,
    resolve,
    resolve_adapter,
)
from tunesmith_operator.plan.status import Outlook, conclude, in_the_way
from tunesmith_operator.plan.types import Key, KindPlan, Observed, Plan, Raw, Reference, TokenFor

KIND = "InferenceService"
LOOK_AGAIN, RETRY_REFUSED = 15.0, 30.0
"""Seconds: look for news of what only Events tell; try again what was refused."""

NO_DIGEST = (
    ", by the name of the folder only: it has no manifest, so that a change of its content would not be noticed; "
    "name a FineTuneJob or a hub model to have the very weights pinned"
)


@dataclass(frozen=True)
class Target:
    """The version to serve, and why it is not the one that the spec asks for."""

    template: Raw | None
    """Pods of that version; None where there is none to serve."""
    candidate: ResolvedModel | None = None
    """The model that the spec asks for, as far as it is known."""
    obstacle: Waiting | Blocked | Refused | None = None
    serves_it: bool = False
    """The model that has not passed is what is deployed: its gate or its verdict came later."""


@dataclass(frozen=True)
class Rollout:
    """How far the Deployment is with a version."""

    version: str | None
    wanted: int
    total: int
    ready: int
    is_done: bool
    """All wanted pods are of this version and can answer."""
    timed_out: bool


def plan(resource: Raw, observed: Observed, now: datetime, config: OperatorConfig, token: TokenFor) -> Plan:
    """What an InferenceService needs next."""
    if is_deleting(resource):
        return Plan()
    spec = typed(InferenceServiceSpec, resource)
    if isinstance(spec, Refused):
        return conclude(resource, observed, _failed(FailureClass.BAD_SPEC, spec.text), now)
    if observed.foreign:
        return conclude(resource, observed, in_the_way(resource, sorted(observed.foreign), observed.former), now)
    target = _target(resource, spec, observed, config)
    outlook = _carry_out(resource, spec, observed, target, now)
    return conclude(resource, observed, outlook, now)


def references(resource: Raw) -> frozenset[Reference]:
    """The resources that made its model and adapters, and the EvalJobs that must have passed it."""
    spec = typed(InferenceServiceSpec, resource)
    if isinstance(spec, Refused):
        return frozenset()
    jobs = spec.promotion.eval_jobs if spec.promotion else []
    return named_by(spec.model, *(spec.adapters or [])) | {Reference("EvalJob", job.name) for job in jobs}


def gets(resource: Raw) -> frozenset[Key]:
    """Its Deployment and its Service bear its name, which somebody else's may bear already."""
    return frozenset({Key("Deployment", name_of(resource)), Key("Service", name_of(resource))})


def wants_events(resource: Raw, observed: Observed, now: datetime) -> frozenset[Key]:
    """Pods that have a node and do not start."""
    return frozenset(key_of(pod, "Pod") for pod in observed.pods if is_slow_to_start(pod, now))


def _target(resource: Raw, spec: InferenceServiceSpec, observed: Observed, config: OperatorConfig) -> Target:
    """The version of the spec if it may be served; else what is deployed stays as it is."""
    deployed = observed.deployments[0]["spec"]["template"] if observed.deployments else None
    engine = engines.choose(spec.engine, spec.resources.accelerator)
    unfit = engines.refusals(engine, spec.resources.accelerator, config.images)
    if wrong := [*unacceptable(KIND, spec, config, namespace_of(resource)), *unfit]:
        return Target(deployed, obstacle=Refused("; ".join(wrong)))
    model = resolve(spec.model, observed.references)
    adapters = _adapters(spec, observed.references)
    if isinstance(model, Waiting | Refused):
        return Target(deployed, obstacle=model)
    if isinstance(adapters, Waiting | Refused):
        return Target(deployed, model, adapters)
    allowed = promoted(spec.promotion, spec.model, model, observed.references)
    served = run_of(deployed) if deployed else None
    if not isinstance(allowed, ResolvedModel) and served and _is_the_same(served, spec, model):
        before = passed_before(resource.get("status") or {}, served.model)
        allowed = promoted(spec.promotion, spec.model, served.model, observed.references, before)
        if not isinstance(allowed, ResolvedModel):
            return Target(deployed, model, allowed, serves_it=True)
    if not isinstance(allowed, ResolvedModel):
        return Target(deployed, model, allowed)
    return Target(pod_template(resource, spec, allowed, adapters, config), allowed)


def _is_the_same(served: RunSpec, spec: InferenceServiceSpec, model: ResolvedModel) -> bool:
    """Whether `model` is what is deployed already."""
    if model.digest or served.model.uri == model.uri:
        return (served.model.uri, served.model.digest) == (model.uri, model.digest)
    return bool(served.spec.get("model") == spec.model.to_dict())


def _adapters(spec: InferenceServiceSpec, there: References) -> list[NamedAdapter] | Waiting | Refused:
    found: list[NamedAdapter] = []
    for adapter in spec.adapters or []:
        resolved = resolve_adapter(adapter, there)
        if not isinstance(resolved, NamedAdapter):
            return resolved
        found.append(resolved)
    return found


def _carry_out(resource: Raw, spec: InferenceServiceSpec, observed: Observed, target: Target, now: datetime) -> Outlook:
    manifests = [deployment(resource, spec, target.template), service(resource)] if target.template else []
    there = {key_of(one, "Deployment"): one for one in observed.deployments}
    there |= {key_of(one, "Service"): one for one in observed.services}
    drifted = [one for one in manifests if not has(there.get(key_of(one, one["kind"])), one)]
    apply = tuple(one for one in drifted if key_of(one, one["kind"]) not in observed.refused)
    rollout = _rollout(observed, target.template, spec, bool(drifted))
    trouble = _trouble(observed, rollout)
    outlook = _outlook(resource, spec, target, rollout, trouble)
    return replace(
        outlook,
        apply=apply,
        trouble=outlook.trouble or trouble,
        fields=_fields(resource, spec, observed, target, rollout),
        conditions=(_promotion_condition(spec, target),) if spec.promotion else (),
        requeue_after=_look_again(observed, rollout),
    )


def _rollout(observed: Observed, template: Raw | None, spec: InferenceServiceSpec, drifted: bool) -> Rollout:
    there = observed.deployments[0] if observed.deployments else {}
    status, wanted = there.get("status") or {}, 0 if spec.suspend else spec.replicas
    total, ready = int(status.get("replicas") or 0), int(status.get("readyReplicas") or 0)
    current = int(status.get("observedGeneration") or 0) >= int(metadata(there).get("generation") or 0)
    complete = total == ready == int(status.get("updatedReplicas") or 0) == wanted
    progressing = condition(there, "Progressing")
    return Rollout(
        version=annotation(template, VERSION_ANNOTATION) if template else None,
        wanted=wanted,
        total=total,
        ready=ready,
        is_done=bool(there) and not drifted and current and complete,
        timed_out=not drifted and current and progressing.get("reason") == "ProgressDeadlineExceeded",
    )


def _outlook(
    resource: Raw, spec: InferenceServiceSpec, target: Target, rollout: Rollout, trouble: LastFailure | None
) -> Outlook:
    served = (resource.get("status") or {}).get("version")
    answers = rollout.ready > 0 and (rollout.is_done or served is not None)
    if spec.suspend:
        return Outlook(
            Phase.SUSPENDED, Reason.SUSPENDED, "spec.suspend is true: no pods; set it to false to serve again"
        )
    if target.obstacle:
        return _held_up(target.obstacle, answers, target.serves_it)
    if rollout.is_done:
        return _done(rollout)
    if rollout.timed_out:
        cause = trouble.message if trouble else f"{rollout.ready} of {rollout.wanted} pods can answer"
        text = f"not ready within spec.rollout.readyTimeout ({spec.rollout.ready_timeout}): {cause}"
        return Outlook(Phase.ROLLING_OUT, Reason.ROLLOUT_TIMEOUT, text, ready=answers, stalled=True)
    return _on_its_way(rollout, served, answers, trouble)


def _held_up(obstacle: Waiting | Blocked | Refused, answers: bool, serves_it: bool) -> Outlook:
    """The spec's version is not rolled out: what answered before goes on, and be it the model that has not passed."""
    which = "it is deployed already and" if serves_it else "the version before it"
    besides = f"; {which} goes on answering" if answers else ""
    if isinstance(obstacle, Waiting):
        phase = Phase.ROLLING_OUT if answers and not serves_it else Phase.WAITING
        text = f"waiting for {obstacle.text}{besides}"
        return Outlook(
            phase,
            obstacle.reason,
            text,
            ready=answers,
            reconciling=not obstacle.in_vain,
            stalled=obstacle.in_vain,
            waiting_for=obstacle.text,
        )
    if isinstance(obstacle, Blocked):
        text = f"{obstacle.text}{besides}"
        return Outlook(Phase.BLOCKED, Reason.PROMOTION_BLOCKED, text, ready=answers, stalled=True)
    return replace(_failed(FailureClass.BAD_SPEC, f"{obstacle.text}{besides}"), ready=answers)


def _done(rollout: Rollout) -> Outlook:
    if rollout.wanted == 0:
        return Outlook(Phase.READY, Reason.SCALED_TO_ZERO, "spec.replicas is 0: no pods")
    return Outlook(Phase.READY, Reason.SERVING, f"{rollout.ready} of {rollout.wanted} pods answer", ready=True)


def _on_its_way(rollout: Rollout, served: str | None, answers: bool, trouble: LastFailure | None) -> Outlook:
    pods = f"{rollout.ready} of {rollout.wanted} pods answer"
    text = f"{pods}; {trouble.message}; {trouble.hint}" if trouble else pods
    reason = str(trouble.class_) if trouble else None
    if served is not None and served != rollout.version:
        return Outlook(Phase.ROLLING_OUT, reason or Reason.ROLLING_OUT, text, ready=answers, reconciling=True)
    phase = Phase.READY if answers else Phase.PENDING
    return Outlook(phase, reason or Reason.STARTING, text, ready=answers, reconciling=True)


def _failed(class_: FailureClass, message: str) -> Outlook:
    return Outlook(Phase.FAILED, str(class_), message, stalled=True, trouble=failure(class_, message))


def _trouble(observed: Observed, rollout: Rollout) -> LastFailure | None:
    """What keeps pods of the version from answering; a child that was refused comes first."""
    if observed.refused:
        return why_refused(next(iter(sorted(observed.refused.values()))))
    if rollout.is_done or not observed.deployments:
        return None
    failed = condition(observed.deployments[0], "ReplicaFailure")
    if failed.get("status") == "True":
        return why_refused(str(failed.get("message") or ""))
    for pod in sorted(observed.pods, key=name_of):
        if (
            annotation(pod, VERSION_ANNOTATION) == rollout.version
            and not is_finished(pod)
            and not is_true(pod, "Ready")
        ):
            trouble = why_pending(pod, observed.events) or why_crashing(pod)
            if trouble:
                return trouble
    return None


def _fields(resource: Raw, spec: InferenceServiceSpec, observed: Observed, target: Target, rollout: Rollout) -> Raw:
    old = resource.get("status") or {}
    namespace = metadata(resource).get("namespace")
    fields: Raw = {
        "url": f"http://{name_of(resource)}.{namespace}.svc/v1" if target.template else old.get("url"),
        "replicas": rollout.total,
        "readyReplicas": rollout.ready,
        "selector": ",".join(f"{name}={value}" for name, value in selector(resource, ROLE).items()),
        "engine": str(engines.choose(spec.engine, spec.resources.accelerator)),
    }
    switched = rollout.is_done and rollout.wanted > 0 and target.template is not None
    if switched and target.template:
        fields |= _served(observed.pods, target.template, rollout.version)
    asked = model_status(target.candidate) if target.candidate else None
    is_served = switched and not target.obstacle
    unchanged = not target.obstacle and old.get("version") == rollout.version
    deployed = run_of(target.template) if target.template else None
    fields["passed"] = _passes(spec, old, deployed, observed.references) if deployed else None
    return {**fields, "candidate": None if is_served or unchanged or target.serves_it else asked}


def _passes(spec: InferenceServiceSpec, old: Raw, deployed: RunSpec, there: References) -> list[Raw] | None:
    """The verdicts on what is deployed, for the day when their EvalJobs are gone."""
    source = ModelSource.model_validate(deployed.spec.get("model") or {})
    before = passed_before(old, deployed.model)
    return passes(spec.promotion, source, deployed.model, there, before) or None


def _served(pods: Sequence[Raw], template: Raw, version: str | None) -> Raw:
    """What the version serves, as its pods have read it."""
    run = run_of(template)
    if run is None:
        return {"version": version}
    mine = sorted((pod for pod in pods if annotation(pod, VERSION_ANNOTATION) == version), key=name_of)
    fetched = next((report for pod in mine if (report := reports(pod).get(Verb.FETCH))), None)
    adapters = [{"name": one.name, "uri": one.model.uri, "digest": one.model.digest} for one in run.adapters]
    return {
        "version": version,
        "model": model_as_read(run.model, fetched),
        "adapters": [{name: value for name, value in one.items() if value} for one in adapters] or None,
    }


def _promotion_condition(spec: InferenceServiceSpec, target: Target) -> Wanted:
    """PromotionBlocked: an EvalJob stands in the way of the model that the spec asks for."""
    obstacle = target.obstacle
    if isinstance(obstacle, Blocked):
        return Wanted("PromotionBlocked", True, Reason.PROMOTION_BLOCKED, obstacle.text)
    if isinstance(obstacle, Waiting):
        return Wanted("PromotionBlocked", None, obstacle.reason, f"waiting for {obstacle.text}")
    if isinstance(obstacle, Refused):
        return Wanted("PromotionBlocked", None, FailureClass.BAD_SPEC, obstacle.text)
    jobs = ", ".join(reference.name for reference in spec.promotion.eval_jobs) if spec.promotion else ""
    by_name = "" if target.candidate and target.candidate.digest else NO_DIGEST
    return Wanted("PromotionBlocked", False, Reason.PROMOTED, f"passed by EvalJob {jobs}{by_name}")


def _look_again(observed: Observed, rollout: Rollout) -> float | None:
    if observed.refused:
        return RETRY_REFUSED
    starting = any(
        (pod.get("status") or {}).get("startTime") and not is_true(pod, "Initialized") for pod in observed.pods
    )
    return LOOK_AGAIN if starting and not rollout.is_done else None


INFERENCE_SERVICE = KindPlan(
    kind=KIND,
    plural="inferenceservices",
    lists=("Pod",),
    gets=gets,
    references=references,
    wants_events=wants_events,
    plan=plan,
)
