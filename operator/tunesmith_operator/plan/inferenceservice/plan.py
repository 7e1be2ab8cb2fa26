"""InferenceService: pods and a Service of the newest version that may be served and gets ready; the one before it until then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from tunesmith_api.common import LastFailure
from tunesmith_api.failures import FailureClass
from tunesmith_api.inferenceservice import InferenceServiceSpec, RolledBack
from tunesmith_api.run import RunSpec, Verb
from tunesmith_operator.plan.config import OperatorConfig
from tunesmith_operator.plan.drift import has
from tunesmith_operator.plan.failures.last_failure import failure, with_hint
from tunesmith_operator.plan.failures.pod_start import is_slow_to_start, start_progress
from tunesmith_operator.plan.inferenceservice import autoscaling, disruption
from tunesmith_operator.plan.inferenceservice.autoscaling import autoscaler, autoscaling_conditions, autoscaling_trouble
from tunesmith_operator.plan.inferenceservice.deployment import ROLE, deployment, service
from tunesmith_operator.plan.inferenceservice.disruption import budget, budget_trouble
from tunesmith_operator.plan.inferenceservice.promotion import Blocked, passed_before, passes, source_as_recorded
from tunesmith_operator.plan.inferenceservice.rollout import (
    Rollout,
    find_trouble,
    give_up,
    is_permanent,
    measure,
    why_late,
)
from tunesmith_operator.plan.inferenceservice.target import Target, choose
from tunesmith_operator.plan.inferenceservice.versions import Versions, known_versions, outdated, revision, version_of
from tunesmith_operator.plan.names import is_deleting, key_of, metadata, name_of, namespace_of, selector
from tunesmith_operator.plan.phases import Phase, Reason
from tunesmith_operator.plan.pods.read import is_true, reports
from tunesmith_operator.plan.pods.template import run_spec_of
from tunesmith_operator.plan.requeue import (
    CONFLICT_INTERVAL,
    IMMEDIATELY,
    POLL_INTERVAL,
    REFUSED_INTERVAL,
    earliest,
)
from tunesmith_operator.plan.spec.reference_cycles import OPEN_RING, describe_ring
from tunesmith_operator.plan.spec.references import References, Refused, Waiting, model_as_read, model_status, named_by
from tunesmith_operator.plan.spec.validate import typed
from tunesmith_operator.plan.status.conditions import Wanted
from tunesmith_operator.plan.status.outlook import Outlook, conclude, in_the_way
from tunesmith_operator.plan.types import CHILDREN, Key, KindPlan, Observed, Plan, Raw, Reference, TokenFor

KIND = "InferenceService"
AT_WILL = frozenset({autoscaling.KIND, disruption.KIND})
"""Kinds of children that are not always wanted. One of somebody else's with our name stands in nobody's way."""

NO_DIGEST = (
    ", by the name of the folder only: it has no manifest, so that a change of its content would not be noticed; "
    "name a FineTuneJob or a hub model to have the very weights pinned"
)


@dataclass(frozen=True)
class Look:
    """One look at a service: what is there, what is to be, and how far it is."""

    resource: Raw
    spec: InferenceServiceSpec
    observed: Observed
    versions: Versions
    target: Target
    rollout: Rollout
    trouble: LastFailure | None
    giving_up: RolledBack | None
    """The version is given up in this look; the next one goes back."""

    @property
    def status(self) -> Raw:
        """The status so far."""
        return self.resource.get("status") or {}

    @property
    def answers(self) -> bool:
        """Whether somebody who asks gets an answer, of a version that was ready once."""
        return self.rollout.ready > 0 and (self.rollout.is_done or self.versions.served is not None)

    @property
    def given_up(self) -> RolledBack | None:
        """The version of the spec, where it was not ready in time: in this look or before."""
        return self.giving_up or self.target.given_up

    @property
    def is_served(self) -> bool:
        """Whether all wanted pods, one at least, have the target's version and can answer."""
        return self.rollout.is_done and self.rollout.wanted > 0 and self.target.template is not None


def plan(resource: Raw, observed: Observed, now: datetime, config: OperatorConfig, token: TokenFor) -> Plan:
    """What an InferenceService needs next."""
    if is_deleting(resource):
        return Plan()
    spec = typed(InferenceServiceSpec, resource)
    if isinstance(spec, Refused):
        return conclude(resource, observed, _failed(FailureClass.BAD_SPEC, spec.text), now)
    if taken := sorted(key for key in observed.foreign if key.kind not in AT_WILL):
        return conclude(resource, observed, in_the_way(resource, taken, observed.former), now)
    versions = known_versions(observed, (resource.get("status") or {}).get("version"))
    target = choose(resource, spec, observed.references, versions, config)
    if observed.ring and isinstance(target.obstacle, Waiting):
        target = replace(target, obstacle=Refused(describe_ring(observed.ring), OPEN_RING))
    manifests = [one for one in _manifests(resource, spec, target) if key_of(one, one["kind"]) not in observed.foreign]
    drifted = [one for one in manifests if not has(_seen(observed, one), one)]
    rollout = measure(observed, target.template, spec, any(one["kind"] == "Deployment" for one in drifted), now)
    trouble = find_trouble(observed, rollout, namespace_of(resource))
    giving_up = give_up(spec, target, versions, rollout, trouble, now)
    look = Look(resource, spec, observed, versions, target, rollout, trouble, giving_up)
    return conclude(resource, observed, _carry_out(look, manifests, drifted), now)


def references(resource: Raw) -> frozenset[Reference]:
    """The resources that made its model and adapters, and the EvalJobs that must have passed it."""
    spec = typed(InferenceServiceSpec, resource)
    if isinstance(spec, Refused):
        return frozenset()
    jobs = spec.promotion.eval_jobs if spec.promotion else []
    return named_by(spec.model, *(spec.adapters or [])) | {Reference("EvalJob", job.name) for job in jobs}


def gets(resource: Raw) -> frozenset[Key]:
    """What bears its name, which somebody else's may bear already.

    What is not always wanted is looked for where it may be: where it is wanted, where status tells of it, and after a
    change of the spec, since a kill may have come between its making and the status.
    """
    status, spec = resource.get("status") or {}, typed(InferenceServiceSpec, resource)
    told = {child.get("kind") for child in status.get("children") or ()}
    changed = status.get("observedGeneration") != metadata(resource).get("generation")
    wanted = {
        autoscaling.KIND: not isinstance(spec, Refused) and autoscaling.is_autoscaled(spec),
        disruption.KIND: not isinstance(spec, Refused) and disruption.is_budgeted(spec),
    }
    maybe = {kind for kind, is_wanted in wanted.items() if is_wanted or changed or kind in told}
    return frozenset(Key(kind, name_of(resource)) for kind in {"Deployment", "Service", *maybe})


def wants_events(resource: Raw, observed: Observed, now: datetime) -> frozenset[Key]:
    """Pods that have a node and do not start."""
    return frozenset(key_of(pod, "Pod") for pod in observed.pods if is_slow_to_start(pod, now))


def _manifests(resource: Raw, spec: InferenceServiceSpec, target: Target) -> Iterator[Raw]:
    """All that is to be there, the record of the version aside."""
    if target.template is None:
        return
    yield deployment(resource, spec, target.template)
    yield service(resource)
    yield from (one for one in (autoscaler(resource, spec, ROLE), budget(resource, spec, ROLE)) if one)


def _seen(observed: Observed, manifest: Raw) -> Raw | None:
    """What is there in a manifest's place."""
    children = getattr(observed, CHILDREN[manifest["kind"]])
    return next((child for child in children if name_of(child) == name_of(manifest)), None)


def _carry_out(look: Look, manifests: Sequence[Raw], drifted: Sequence[Raw]) -> Outlook:
    resource, observed, target = look.resource, look.observed, look.target
    fields = _fields(look)
    record = revision(resource, target.template, ROLE, observed) if target.template else None
    needed = (look.rollout.version, fields.get("version") or look.versions.served, look.versions.deployed)
    wanted = {key_of(one, one["kind"]) for one in manifests}
    outlook = _outlook(look)
    scaling = autoscaling_conditions(resource, look.spec, observed)
    troubles = (autoscaling_trouble(scaling), budget_trouble(resource, look.spec, observed))
    message = "; ".join(text for text in (outlook.message, *troubles) if text)
    return replace(
        outlook,
        message=message,
        create=(record,) if record and key_of(record, record["kind"]) not in observed.refused else (),
        apply=tuple(one for one in drifted if key_of(one, one["kind"]) not in observed.refused),
        delete=(*outdated(resource, observed, needed), *_not_wanted(observed, wanted)),
        trouble=outlook.trouble or look.trouble,
        fields=fields,
        conditions=(*_promotion_condition(look.spec, target), *_rollback_condition(look), *scaling),
        for_good=look.giving_up is not None,
        requeue_after=_look_again(look),
    )


def _not_wanted(observed: Observed, wanted: set[Key]) -> tuple[Key, ...]:
    """The autoscaler and the disruption budget, where they are ours and no longer asked for."""
    there = (key_of(child, kind) for kind in sorted(AT_WILL) for child in getattr(observed, CHILDREN[kind]))
    return tuple(key for key in there if key not in wanted)


def _outlook(look: Look) -> Outlook:
    rollout, target = look.rollout, look.target
    if look.spec.suspend:
        return _suspended(rollout)
    if look.giving_up or (target.given_up and not target.obstacle):
        return _rolled_back(look)
    if target.obstacle:
        return _held_up(target.obstacle, look.answers, target.serves_it)
    if rollout.is_done:
        return _done(rollout)
    if is_permanent(look.trouble) and look.versions.served != rollout.version:
        return _never(look)
    if rollout.timed_out:
        return _late(look)
    return _on_its_way(look)


def _never(look: Look) -> Outlook:
    """The version has a fault that waiting does not mend, and there is no other to go back to."""
    trouble = look.trouble
    assert trouble is not None
    text = why_late(look.spec, trouble)
    return Outlook(Phase.FAILED, str(trouble.class_), text, ready=look.answers, stalled=True, trouble=trouble)


def _late(look: Look) -> Outlook:
    """The version is not ready in time, and there is no other to go back to."""
    was_ready = look.versions.served == look.rollout.version
    before = "It was ready before" if was_ready else "No other version was ready before"
    text = f"{before}, so it is not given up: {why_late(look.spec, look.trouble)}"
    return Outlook(Phase.ROLLING_OUT, Reason.ROLLOUT_TIMEOUT, text, ready=look.answers, stalled=True)


def _suspended(rollout: Rollout) -> Outlook:
    left = rollout.total + rollout.stopping
    pods = f"{left} pods finish their answers and stop" if left else "no pods"
    text = f"spec.suspend is true: {pods}; set it to false to serve again"
    return Outlook(Phase.SUSPENDED, Reason.SUSPENDED, text, reconciling=not rollout.is_done)


def _rolled_back(look: Look) -> Outlook:
    """The version of the spec was not ready in time; the one before it is back, or on its way back."""
    record = look.given_up
    assert record is not None
    done = look.rollout.is_done and not look.giving_up
    pods = f"{look.rollout.ready} of {look.rollout.wanted} pods answer"
    text = (
        f"version {record.version} was given up: {record.message}. "
        f"{'Rolled' if done else 'Rolling'} back to version {look.versions.served}: {pods}. "
        "The same is not tried again: change the spec or the model, or set spec.restart to another text"
    )
    kept = None if look.trouble else _last_failure(look.status)
    return Outlook(Phase.ROLLED_BACK, Reason.ROLLED_BACK, text, ready=look.answers, stalled=True, trouble=kept)


def _last_failure(status: Raw) -> LastFailure | None:
    """The last failure once more, so that it stays to be seen when its pod is gone."""
    try:
        return LastFailure.model_validate(status["lastFailure"])
    except (KeyError, ValueError):
        return None


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
    return replace(_failed(FailureClass.BAD_SPEC, f"{obstacle.text}{besides}", obstacle.hint), ready=answers)


def _done(rollout: Rollout) -> Outlook:
    if rollout.wanted == 0:
        return Outlook(Phase.READY, Reason.SCALED_TO_ZERO, "spec.replicas is 0: no pods")
    return Outlook(Phase.READY, Reason.SERVING, f"{rollout.ready} of {rollout.wanted} pods answer", ready=True)


def _on_its_way(look: Look) -> Outlook:
    rollout, trouble, served = look.rollout, look.trouble, look.versions.served
    pods = f"{rollout.ready} of {rollout.wanted} pods answer"
    delays = next(
        (
            text
            for pod in sorted(look.observed.pods, key=name_of)
            if (text := start_progress(pod, look.observed.events))
        ),
        None,
    )
    text = with_hint(f"{pods}; {trouble.message}", trouble.hint) if trouble else f"{pods}: {delays}" if delays else pods
    reason = str(trouble.class_) if trouble else None
    if served is not None and served != rollout.version:
        text = f"version {rollout.version} is to take the place of {served}: {text}"
        return Outlook(Phase.ROLLING_OUT, reason or Reason.ROLLING_OUT, text, ready=look.answers, reconciling=True)
    phase = Phase.READY if look.answers else Phase.PENDING
    return Outlook(phase, reason or Reason.STARTING, text, ready=look.answers, reconciling=True)


def _failed(class_: FailureClass, message: str, hint: str = "") -> Outlook:
    trouble = failure(class_, message, hint or None, KIND)
    return Outlook(Phase.FAILED, str(class_), with_hint(message, hint), stalled=True, trouble=trouble)


def _fields(look: Look) -> Raw:
    old, target, rollout, resource = look.status, look.target, look.rollout, look.resource
    fields: Raw = {
        "url": f"http://{name_of(resource)}.{namespace_of(resource)}.svc/v1" if target.template else old.get("url"),
        "replicas": rollout.total,
        "readyReplicas": rollout.ready,
        "selector": ",".join(f"{name}={value}" for name, value in selector(resource, ROLE).items()),
    }
    if look.is_served and target.template:
        fields |= _served(look.observed.pods, target.template, rollout.version)
    asked = model_status(target.candidate) if target.candidate else None
    unchanged = target.is_wanted and (look.is_served or old.get("version") == rollout.version)
    deployed = run_spec_of(target.template) if target.template else None
    fields["engine"] = deployed.spec.get("engine") if deployed else None
    fields["passed"] = _passes(look.spec, old, deployed, look.observed.references) if deployed else None
    fields["rolledBack"] = look.given_up.to_dict() if look.given_up else None
    return {**fields, "candidate": None if unchanged or target.serves_it else asked}


def _passes(spec: InferenceServiceSpec, old: Raw, deployed: RunSpec, there: References) -> list[Raw] | None:
    """The verdicts on what is deployed, for the day when their EvalJobs are gone."""
    source = source_as_recorded(deployed.spec.get("model") or {})
    before = passed_before(old, deployed.subject)
    return passes(spec.promotion, source, deployed.subject, there, before) or None


def _served(pods: Sequence[Raw], template: Raw, version: str | None) -> Raw:
    """What the version serves, as its pods have read it."""
    run = run_spec_of(template)
    if run is None:
        return {"version": version}
    mine = sorted((pod for pod in pods if version_of(pod) == version), key=name_of)
    fetched = next((report for pod in mine if (report := reports(pod).get(Verb.FETCH))), None)
    adapters = [{"name": one.name, "uri": one.model.uri, "digest": one.model.digest} for one in run.adapters]
    return {
        "version": version,
        "model": model_as_read(run.subject, fetched),
        "adapters": [{name: value for name, value in one.items() if value} for one in adapters] or None,
    }


def _promotion_condition(spec: InferenceServiceSpec, target: Target) -> tuple[Wanted, ...]:
    """PromotionBlocked: an EvalJob stands in the way of the model that the spec asks for."""
    obstacle = target.obstacle
    if spec.promotion is None:
        return ()
    if isinstance(obstacle, Blocked):
        return (Wanted("PromotionBlocked", True, Reason.PROMOTION_BLOCKED, obstacle.text),)
    if isinstance(obstacle, Waiting):
        return (Wanted("PromotionBlocked", None, obstacle.reason, f"waiting for {obstacle.text}"),)
    if isinstance(obstacle, Refused):
        return (Wanted("PromotionBlocked", None, FailureClass.BAD_SPEC, obstacle.text),)
    jobs = ", ".join(reference.name for reference in spec.promotion.eval_jobs)
    by_name = "" if target.candidate and target.candidate.digest else NO_DIGEST
    return (Wanted("PromotionBlocked", False, Reason.PROMOTED, f"passed by EvalJob {jobs}{by_name}"),)


def _rollback_condition(look: Look) -> tuple[Wanted, ...]:
    """RolledBack: the version that the spec asks for was given up."""
    record = look.given_up
    return (Wanted("RolledBack", True, Reason.ROLLOUT_TIMEOUT, record.message),) if record else ()


def _look_again(look: Look) -> float | None:
    pods = look.observed.pods
    starting = any((pod.get("status") or {}).get("startTime") and not is_true(pod, "Initialized") for pod in pods)
    return earliest(
        IMMEDIATELY if look.giving_up else None,
        REFUSED_INTERVAL if look.observed.refused else None,
        CONFLICT_INTERVAL if look.observed.foreign else None,
        POLL_INTERVAL if starting and not look.rollout.is_done else None,
        look.rollout.seconds_left or None,
    )


INFERENCE_SERVICE = KindPlan(
    kind=KIND,
    lists=("ControllerRevision", "Pod"),
    gets=gets,
    references=references,
    wants_events=wants_events,
    plan=plan,
)
