"""What FineTuneJob and EvalJob have in common: attempts of one or more roles, from the first pod to the verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from tunesmith_api.base import parse_duration
from tunesmith_api.common import LastFailure
from tunesmith_api.evaljob import EvalJobSpec
from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.run import ResolvedModel
from tunesmith_operator.plan.config import OperatorConfig
from tunesmith_operator.plan.drift import has
from tunesmith_operator.plan.failures.last_failure import failure, with_hint, with_recreation
from tunesmith_operator.plan.failures.pod_start import is_slow_to_start, slow_after, start_progress
from tunesmith_operator.plan.failures.rejection import is_short_of_pods, rejection_failure
from tunesmith_operator.plan.jobs import accounting, prepare
from tunesmith_operator.plan.jobs.after_completion import after_the_end
from tunesmith_operator.plan.jobs.attempts import (
    ACTIVE,
    Course,
    State,
    admitted,
    follow,
    is_given_up,
    is_over,
    is_suspended,
    may_work,
    next_start,
)
from tunesmith_operator.plan.jobs.manifest import job
from tunesmith_operator.plan.jobs.queueing import QUEUE_LABEL, has_a_word, what_it_waits_for
from tunesmith_operator.plan.jobs.throttle import throttled
from tunesmith_operator.plan.names import (
    ATTEMPT_ANNOTATION,
    ROLE_LABEL,
    annotation,
    is_deleting,
    job_name,
    job_stem,
    key_of,
    label,
    labels,
    metadata,
    name_of,
    namespace_of,
)
from tunesmith_operator.plan.pods.members import has_started, pod_count
from tunesmith_operator.plan.pods.read import condition
from tunesmith_operator.plan.pods.template import PodPlan
from tunesmith_operator.plan.spec.reference_cycles import OPEN_RING, describe_ring
from tunesmith_operator.plan.spec.references import References, Refused, Waiting
from tunesmith_operator.plan.spec.validate import typed, unacceptable
from tunesmith_operator.plan.status.conditions import Wanted
from tunesmith_operator.plan.status.outlook import Outlook, conclude, earliest, in_the_way, until
from tunesmith_operator.plan.status.phases import Phase, Reason, is_final
from tunesmith_operator.plan.times import format_time, parse_time
from tunesmith_operator.plan.types import Key, Observed, Plan, Raw, TokenFor

EVENT_COMES, LOOK_AGAIN, RETRY_REFUSED, FIRST_WORD, UNHEARD = 1.0, 15.0, 30.0, 2.0, 30.0
"""Seconds: an Event follows what it tells of; look for news of what only Events tell; try again what was refused; a
queue has looked at a Job; look for a Job that was made and of which nothing has been heard."""

Models = Mapping[str, ResolvedModel]
"""By role."""


Spec = TypeVar("Spec", FineTuneJobSpec, EvalJobSpec)


@dataclass(frozen=True)
class JobKind(Generic[Spec]):
    """What is a kind's own."""

    kind: str
    spec: type[Spec]
    roles: Callable[[Spec], Sequence[str]]
    refusals: Callable[[Spec, OperatorConfig], Sequence[str]]
    resolve: Callable[[Spec, References], Models | Waiting | Refused]
    pod: Callable[[Raw, Spec, str, ResolvedModel, int, OperatorConfig], PodPlan]
    """(resource, spec, role, model, attempt, config) -> the pod of an attempt."""
    tell: Callable[[Raw, Spec, Sequence[Course], Observed, datetime], Raw]
    """The kind's own fields of status, from what there is so far."""
    finish: Callable[[Raw, Spec, Sequence[Course], datetime], Outlook]
    """The end, when every role has succeeded."""
    pods: Callable[[Spec], int] = lambda spec: 1
    """Pods of an attempt."""
    services: Callable[[Raw, Spec], tuple[Raw, ...]] = lambda resource, spec: ()
    """(resource, spec) -> the Services by which the pods of an attempt find each other."""
    role_names: Mapping[str, str] = field(default_factory=dict)
    """How status names the roles, where there are several."""
    preparing: Mapping[str, str] = field(default_factory=dict)
    """Role -> the role of the Jobs that prepare its work."""


@dataclass(frozen=True)
class Scene(Generic[Spec]):
    """All that a decision looks at."""

    kind: JobKind[Spec]
    resource: Raw
    spec: Spec
    courses: tuple[Course, ...]
    """Of each role the one that says how it stands: that of its work, or of what prepares it."""
    aside: tuple[Course, ...]
    """The others."""
    observed: Observed
    now: datetime
    config: OperatorConfig
    token: TokenFor

    @property
    def status(self) -> Raw:
        """The status as it is."""
        return self.resource.get("status") or {}

    @property
    def every(self) -> tuple[Course, ...]:
        """All of them."""
        return (*self.courses, *self.aside)

    @property
    def works(self) -> list[Course]:
        """The courses of work that was ever attempted, or may be now."""
        attempted = (*self.courses, *(course for course in self.aside if course.number > 0))
        return [course for course in attempted if not course.prepares]

    @property
    def unfinished(self) -> tuple[Key, ...]:
        """All Jobs that may still have pods at work, but of what has succeeded."""
        return tuple(
            key for one in self.every for key in (one.former if one.state is State.SUCCEEDED else one.unfinished)
        )


def plan_job(
    kind: JobKind[Spec], resource: Raw, observed: Observed, now: datetime, config: OperatorConfig, token: TokenFor
) -> Plan:
    """The plan of a FineTuneJob or EvalJob."""
    if is_deleting(resource):
        return Plan()
    spec = typed(kind.spec, resource)
    if isinstance(spec, Refused):
        if is_final(resource):
            return after_the_end(resource, observed, (), now)
        return conclude(resource, observed, _refused([spec.text], kind.kind), now)
    status = resource.get("status") or {}
    courses, aside = _courses(kind, spec, resource, observed, now)
    scene = Scene(kind, resource, spec, courses, aside, observed, now, config, token)
    if is_final(resource):
        accounts = _accounts(scene, lambda course: accounting.STOPPED)
        return after_the_end(resource, observed, accounts, now, scene.unfinished)
    decided: Outlook = next(found for decide in DECISIONS if (found := decide(scene)))
    outlook = _without_the_useless(scene, _with_services(scene, decided))
    return throttled(status, conclude(resource, observed, _with_fields(scene, outlook), now), now)


def _courses(
    kind: JobKind[Spec], spec: Spec, resource: Raw, observed: Observed, now: datetime
) -> tuple[tuple[Course, ...], tuple[Course, ...]]:
    """Of each role the course in charge; and the others."""
    status = resource.get("status") or {}
    chosen: list[Course] = []
    aside: list[Course] = []
    for role in kind.roles(spec):
        called = kind.role_names.get(role)
        number = accounting.number_known(status, called, job_stem(resource, role))
        work = follow(role, observed, number, accounting.failures_of(status, called), now)
        chosen.append(work)
        if prepare.is_wanted(spec.resources):
            preparation = follow(role, observed, 0, 0, now, preparing=kind.preparing[role])
            again = job_name(resource, preparation.called, preparation.number + 1)
            refused = preparation.state not in ACTIVE and Key("Job", again) in observed.refused
            chosen[-1] = prepare.in_charge(work, preparation, refused)
            aside.append(work if chosen[-1] is preparation else preparation)
    return tuple(chosen), tuple(aside)


def wants_job_events(resource: Raw, observed: Observed, now: datetime) -> frozenset[Key]:
    """Jobs whose controller could make no pod, and pods that do not start for longer than is usual: only Events tell why."""
    if is_deleting(resource) or is_final(resource):
        return frozenset()
    owned = [owner.get("name") for pod in observed.pods for owner in metadata(pod).get("ownerReferences") or []]
    jobs = (
        key_of(job, "Job")
        for job in observed.jobs
        if not (is_over(job) or is_suspended(job))
        and owned.count(name_of(job)) < pod_count(job)
        and is_short_of_pods(job)
    )
    pods = (key_of(pod, "Pod") for pod in observed.pods if is_slow_to_start(pod, now))
    return frozenset([*jobs, *pods])


def _name_conflict(scene: Scene[Spec]) -> Outlook | None:
    for course in scene.courses:
        name = job_name(scene.resource, course.called, course.number + 1)
        beside: list[Key] = [key_of(one, "Service") for one in scene.kind.services(scene.resource, scene.spec)]
        taken = [key for key in (Key("Job", name), *beside) if key in scene.observed.foreign]
        if course.state not in ACTIVE | {State.SUCCEEDED} and taken:
            return in_the_way(scene.resource, taken, scene.observed.former)
    return None


def _finished(scene: Scene[Spec]) -> Outlook | None:
    if any(course.state is not State.SUCCEEDED for course in scene.courses):
        return None
    outlook = scene.kind.finish(scene.resource, scene.spec, scene.courses, scene.now)
    return _ended(scene, outlook)


def _given_up(scene: Scene[Spec]) -> Outlook | None:
    for course in scene.courses:
        if course.trouble and is_given_up(course, scene.spec.retries):
            spent = f"; no retries are left of {scene.spec.retries}" if course.failures > scene.spec.retries > 0 else ""
            trouble = course.trouble.model_copy(update={"hint": with_recreation(course.trouble.hint)})
            return _ended(scene, _failed(trouble, with_hint(f"{trouble.message}{spent}", trouble.hint)))
    return None


def _unacceptable(scene: Scene[Spec]) -> Outlook | None:
    """The spec is refused, but an attempt that is under way goes on: it was right when it began."""
    if any(course.state in ACTIVE for course in scene.courses):
        return None
    wrong: list[str] = [
        *unacceptable(scene.kind.kind, scene.spec, scene.config, namespace_of(scene.resource)),
        *scene.kind.refusals(scene.spec, scene.config),
    ]
    return _refused(wrong, scene.kind.kind) if wrong else None


def _suspended(scene: Scene[Spec]) -> Outlook | None:
    if not scene.spec.suspend:
        return None
    stopping = [name for course in scene.every for name in course.stopping]
    going = tuple(dict.fromkeys(key for course in scene.every for key in course.unfinished))
    message = "spec.suspend is true: no pods; set it to false to go on from the last checkpoint"
    if going or stopping:
        message = "spec.suspend is true: pods save their state and stop"
    return Outlook(
        Phase.SUSPENDED,
        Reason.SUSPENDED,
        message,
        reconciling=bool(going or stopping),
        delete=going,
        trouble=_failure(scene),
        requeue_after=LOOK_AGAIN if going or stopping else None,
    )


def _too_late(scene: Scene[Spec]) -> Outlook | None:
    end = _deadline(scene)
    if end and scene.now >= end:
        trouble = failure(
            FailureClass.DEADLINE_EXCEEDED,
            f"it took longer than spec.deadline ({scene.spec.deadline}) from its first start",
            kind=scene.kind.kind,
        )
        return _ended(scene, _failed(trouble, with_hint(trouble.message, trouble.hint)))
    for course in scene.courses:
        end = _pending_deadline(scene, course)
        if end and scene.now >= end:
            cause = course.trouble.message if course.trouble else "its pod did not start"
            text = f"pending for longer than spec.pendingDeadline ({scene.spec.pending_deadline}): {cause}"
            hint = with_recreation(course.trouble.hint) if course.trouble else None
            trouble = failure(FailureClass.DEADLINE_EXCEEDED, text, hint, scene.kind.kind)
            return _ended(scene, _failed(trouble, with_hint(text, trouble.hint)))
    return None


def _next_attempts(scene: Scene[Spec]) -> Outlook | None:
    """New attempts for the roles that need one and may have it now."""
    idle = [course for course in scene.courses if course.state not in ACTIVE | {State.SUCCEEDED}]
    ready = [course for course in idle if not course.stopping and next_start(course, scene.now) <= scene.now]
    gone: tuple[Key, ...] = tuple(key for course in idle for key in course.unfinished)
    if not ready:
        return replace(_as_it_is(scene), delete=gone) if gone else None
    models = scene.kind.resolve(scene.spec, scene.observed.references)
    if isinstance(models, Refused):
        return _refused([models.text], scene.kind.kind)
    if isinstance(models, Waiting) and scene.observed.ring:
        return replace(_refused([describe_ring(scene.observed.ring)], scene.kind.kind, OPEN_RING), delete=gone)
    if isinstance(models, Waiting):
        return replace(_waiting(models), delete=gone, trouble=_failure(scene))
    made = [_attempt(scene, course, models[course.role]) for course in ready]
    refused = [scene.observed.refused[key] for one in made if (key := key_of(one, "Job")) in scene.observed.refused]
    if refused:
        rest = tuple(one for one in made if key_of(one, "Job") not in scene.observed.refused)
        return replace(
            _pending(rejection_failure(refused[0], namespace_of(scene.resource), scene.kind.kind)),
            create=rest,
            requeue_after=RETRY_REFUSED,
        )
    stale: tuple[Key, ...] = tuple(key for course in ready for key in course.stale)
    return replace(_as_it_is(scene, ready), create=tuple(made), delete=tuple(dict.fromkeys((*gone, *stale))))


def _with_services(scene: Scene[Spec], outlook: Outlook) -> Outlook:
    """The Services of what is under way: made, and put right where somebody has changed them."""
    if not scene.works or not (outlook.create or any(course.state in ACTIVE for course in scene.works)):
        return outlook
    there = {name_of(one): one for one in scene.observed.services}
    wanted = {key_of(one, "Service"): one for one in scene.kind.services(scene.resource, scene.spec)}
    refused = [scene.observed.refused[key] for key in wanted if key in scene.observed.refused]
    if refused and outlook.phase is Phase.PENDING:
        waits = _pending(rejection_failure(refused[0], namespace_of(scene.resource), scene.kind.kind))
        outlook = replace(waits, create=outlook.create, delete=outlook.delete, requeue_after=RETRY_REFUSED)
    out_of_reach = {*scene.observed.refused, *scene.observed.foreign}
    lacking = (one for key, one in wanted.items() if not (has(there.get(key.name), one) or key in out_of_reach))
    return replace(outlook, apply=tuple(lacking))


def _without_the_useless(scene: Scene[Spec], outlook: Outlook) -> Outlook:
    """What a kill has kept from being deleted, and what nobody waits for any more, goes."""
    useless: list[Key] = [key for course in scene.every for key in course.former]
    useless += prepare.useless(scene.courses, scene.aside)
    return replace(outlook, delete=tuple(dict.fromkeys((*outlook.delete, *useless))))


def _as_it_is(scene: Scene[Spec], made: Sequence[Course] = ()) -> Outlook:
    """Attempts under way: the phase is that of the role that is furthest."""
    trouble = next((course.trouble for course in scene.courses if course.trouble), None)
    states = {_shown(scene, course, is_made=course in made) for course in scene.courses}
    under_way = [(phase, reason, message) for state, phase, reason, message in PHASES if state in states]
    phase, reason, message = under_way[0] if under_way else (Phase.PENDING, *_between(scene))
    if delays := _delays(scene):
        message = f"{message}: {delays}"
    if phase is Phase.QUEUED:
        return _queued(scene)
    if phase is Phase.PENDING and trouble and State.STARTING in states and not made:
        return replace(_pending(trouble), requeue_after=_look_again(scene))
    return Outlook(
        phase,
        reason,
        message,
        reconciling=True,
        waiting_for=message.removeprefix("waiting for ") if reason is Reason.WAITING_FOR_POD else None,
        trouble=trouble,
        requeue_after=_look_again(scene),
    )


def _delays(scene: Scene[Spec]) -> str | None:
    """What the first pod does that is slow to start."""
    starting = [pod for course in scene.courses if course.state is State.STARTING for pod in course.members]
    return next((text for pod in starting if (text := start_progress(pod, scene.observed.events))), None)


def _shown(scene: Scene[Spec], course: Course, is_made: bool) -> State:
    """How an attempt that is under way, or is made in this look, is to be told of."""
    if course.prepares and (is_made or course.state in ACTIVE):
        waits = course.state is State.STARTING and course.trouble
        return State.STARTING if waits and not is_made else State.PREPARING
    if is_made:
        return State.QUEUED if scene.spec.queue_name else State.STARTING
    return course.state


def _queued(scene: Scene[Spec]) -> Outlook:
    """All that is under way waits in a queue."""
    held = [course.job for course in scene.courses if course.job and course.state is State.QUEUED]
    stopping = [name_of(pod) for course in scene.courses for pod in course.pods if may_work(pod, scene.now)]
    seen = scene.observed
    words = dict.fromkeys(what_it_waits_for(job, seen.workloads, seen.workloads_problem) for job in held)
    text = "; ".join(words) or f"LocalQueue {scene.spec.queue_name} to admit it"
    message = f"waiting for {text}"
    if stopping:
        message = f"its queue has stopped it: pod {', '.join(stopping)} saves its state and stops; {message}"
    return Outlook(
        Phase.QUEUED,
        Reason.QUEUED,
        message,
        reconciling=True,
        trouble=_failure(scene),
        waiting_for=text,
        requeue_after=_look_again(scene),
    )


DECISIONS: tuple[Callable[[Scene[Any]], Outlook | None], ...] = (
    _finished,
    _given_up,
    _unacceptable,
    _suspended,
    _too_late,
    _name_conflict,
    _next_attempts,
    _as_it_is,
)
"""In this order; the first that has an outlook has the word."""

PHASES: tuple[tuple[State, Phase, Reason, str], ...] = (
    (State.RUNNING, Phase.RUNNING, Reason.RUNNING, "running"),
    (State.FETCHING, Phase.PREPARING, Reason.FETCHING, "fetching the model and the data"),
    (
        State.PREPARING,
        Phase.PREPARING,
        Reason.PREPARING,
        "checking the store for finished work before requesting devices",
    ),
    (
        State.STARTING,
        Phase.PENDING,
        Reason.WAITING_FOR_POD,
        "waiting for the pod to be scheduled and its image to be pulled",
    ),
    (State.QUEUED, Phase.QUEUED, Reason.QUEUED, ""),
)


def _between(scene: Scene[Spec]) -> tuple[Reason, str]:
    """Why no attempt is under way."""
    stopping = [name for course in scene.courses for name in course.stopping]
    if stopping:
        return Reason.STOPPING, f"waiting for pod {', '.join(stopping)} to save its state and stop"
    course = next(course for course in scene.courses if course.state not in ACTIVE | {State.SUCCEEDED})
    begin, cause = format_time(next_start(course, scene.now)), course.trouble.message if course.trouble else "stopped"
    ended, again = f"attempt {course.number} ended", f"attempt {course.number + 1} begins"
    if course.prepares:
        ended, again = "what prepares it ended", "it is tried again"
    return Reason.BACK_OFF, with_hint(
        f"{ended}: {cause}; {again} at {begin}", course.trouble.hint if course.trouble else ""
    )


def _attempt(scene: Scene[Spec], course: Course, model: ResolvedModel) -> Raw:
    pod = scene.kind.pod(scene.resource, scene.spec, course.role, model, course.number + 1, scene.config)
    role, queue = course.called, scene.spec.queue_name
    if course.prepares:
        pod, queue = prepare.pod(pod, labels(scene.resource, role)), None
    return job(scene.resource, role, pod, course.failures, scene.token, queue)


def _failure(scene: Scene[Spec]) -> LastFailure | None:
    """Why an attempt failed, if one did."""
    return next((course.trouble for course in scene.courses if course.state is State.FAILED), None)


def _waiting(what: Waiting) -> Outlook:
    return Outlook(
        Phase.WAITING,
        what.reason,
        f"waiting for {what.text}",
        reconciling=not what.in_vain,
        stalled=what.in_vain,
        waiting_for=what.text,
    )


def _pending(trouble: LastFailure) -> Outlook:
    """Pods do not start; they will by themselves when the trouble is over."""
    return Outlook(
        Phase.PENDING,
        str(trouble.class_),
        with_hint(trouble.message, trouble.hint),
        reconciling=True,
        waiting_for=trouble.message,
        trouble=trouble,
    )


def _refused(sentences: Sequence[str], kind: str, hint: str = "") -> Outlook:
    """Not final: the operator's configuration may come to allow it. `hint`: where the sentences do not say what to do."""
    trouble = failure(FailureClass.BAD_SPEC, "; ".join(sentences), kind=kind)
    if hint:
        trouble = trouble.model_copy(update={"hint": hint})
    return _failed(trouble, with_hint(trouble.message, hint))


def _failed(trouble: LastFailure, message: str) -> Outlook:
    return Outlook(
        Phase.FAILED, str(trouble.class_), message, stalled=True, trouble=trouble,
        conditions=(Wanted("Succeeded", False, str(trouble.class_), message),),
    )  # fmt: skip


def _ended(scene: Scene[Spec], outlook: Outlook) -> Outlook:
    """A final outlook: with its time, and Reconciling until nothing is left at work."""
    at_work = scene.unfinished
    ttl = scene.spec.ttl_after_finished
    return replace(
        outlook,
        reconciling=bool(at_work),
        fields={**outlook.fields, "completionTime": format_time(scene.now)},
        delete=at_work,
        requeue_after=earliest(LOOK_AGAIN if at_work else None, parse_duration(ttl) if ttl else None),
    )


def _with_fields(scene: Scene[Spec], outlook: Outlook) -> Outlook:
    """What both kinds tell besides: attempts, times, and whether it has succeeded."""
    roles = {course.role for course in scene.works}
    made: list[int] = [
        int(annotation(one, ATTEMPT_ANNOTATION) or 0) for one in outlook.create if label(one, ROLE_LABEL) in roles
    ]
    number = max([0, *made, *(course.number for course in scene.works)])
    anew: Raw = {"resumedFromStep": None} if number != int(scene.status.get("attempt") or 0) else {}
    told = scene.kind.tell(scene.resource, scene.spec, scene.courses, scene.observed, scene.now)
    fields = {
        **({**told, **anew} if made else {**anew, **told}),  # what is told while one is made is of the one before it
        "attempt": number or None,
        "failures": max((course.failures for course in scene.works), default=0) or None,
        "startTime": _first_start(scene),
        **accounting.accounts(scene.status, _accounts(scene, lambda course: _stopped(course, outlook))),
        **outlook.fields,
    }
    unknown = (Wanted("Succeeded", None, outlook.reason, outlook.message),)
    return replace(outlook, fields=fields, conditions=outlook.conditions or unknown)


def _accounts(scene: Scene[Spec], stopped: Callable[[Course], str | None]) -> list[accounting.Account]:
    devices, width = scene.spec.resources.devices, scene.kind.pods(scene.spec)
    return [
        accounting.Account(scene.kind.role_names.get(one.role), one, devices, width, stopped(one), scene.now)
        for one in scene.works
    ]


def _stopped(course: Course, outlook: Outlook) -> str | None:
    """How an attempt ends that is ended from outside of it."""
    if outlook.phase is Phase.SUSPENDED:
        return accounting.SUSPENDED
    return accounting.STOPPED if set(course.unfinished) & set(outlook.delete) else None


def _first_start(scene: Scene[Spec]) -> str | None:
    """When a container of the work ran for the first time; of what was adopted, of the pod that found it. A pod that only has a
    node yet is not worth a write."""
    pods = [pod for course in scene.works for pod in course.members if has_started(pod)]
    if not pods and all(course.state is State.SUCCEEDED for course in scene.courses):
        pods = [pod for course in scene.courses for pod in course.members]
    starts = [str(start) for pod in pods if (start := (pod.get("status") or {}).get("startTime"))]
    return scene.status.get("startTime") or min(starts, default=None)


def _deadline(scene: Scene[Spec]) -> datetime | None:
    start = parse_time(_first_start(scene))
    return start + timedelta(seconds=parse_duration(scene.spec.deadline)) if start and scene.spec.deadline else None


def _pending_deadline(scene: Scene[Spec], course: Course) -> datetime | None:
    if not scene.spec.pending_deadline or course.state is not State.STARTING or not course.job:
        return None
    asked = _asked(course.job)
    return asked + timedelta(seconds=parse_duration(scene.spec.pending_deadline)) if asked else None


def _look_again(scene: Scene[Spec]) -> float | None:
    """Seconds after which time alone may have changed something."""
    waits: list[float | None] = [until(_deadline(scene), scene.now)]
    for course in scene.courses:
        waits.append(until(_pending_deadline(scene, course), scene.now))
        if course.state is State.STARTING and course.job:
            waits.append(_until_events_tell(course, course.job, scene.now))
        if course.state in ACTIVE and course.job and (is_over(course.job) or is_deleting(course.pod or {})):
            waits.append(LOOK_AGAIN)
        if course.state is State.QUEUED and course.job and scene.config.kueue.enabled:
            held = parse_time(condition(course.job, "Suspended").get("lastTransitionTime"))
            often = LOOK_AGAIN if has_a_word(course.job, scene.observed.workloads) else FIRST_WORD
            waits.append(max(often, _age(held, scene.now) / 4))
        if course.state in (State.NONE, State.FAILED):
            waits.append(LOOK_AGAIN if course.stopping else until(next_start(course, scene.now), scene.now) or UNHEARD)
    return earliest(*waits)


def _until_events_tell(course: Course, job: Raw, now: datetime) -> float | None:
    """Seconds until Events may tell what no change of the Job or the pod does; None where such a change will come."""
    slow = min((at for pod in course.members if (at := slow_after(pod))), default=None)
    if slow and now <= slow:
        return (slow - now).total_seconds() + EVENT_COMES
    if not slow and not (len(course.members) < pod_count(job) and is_short_of_pods(job)):
        return None
    return max(LOOK_AGAIN if course.trouble else EVENT_COMES, _age(_asked(job), now) / 4)


def _asked(job: Raw) -> datetime | None:
    """Since when a Job may have pods; None while it is held back, and until its controller knows that it is not."""
    was_held = is_suspended(job) or condition(job, "Suspended") or label(job, QUEUE_LABEL)
    return admitted(job) or (None if was_held else parse_time(metadata(job).get("creationTimestamp")))


def _age(since: datetime | None, now: datetime) -> float:
    return (now - since).total_seconds() if since else 0.0
