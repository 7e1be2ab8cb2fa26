"""FineTuneJob: an attempt is a pod, or several that train together, which fetches, trains and exports."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.hashing import spec_hash
from tunesmith_api.run import Outcome, ResolvedModel, RunReport, RunSpec, Verb, models_by_role
from tunesmith_operator.plan.config import OperatorConfig
from tunesmith_operator.plan.finetunejob import distributed as together
from tunesmith_operator.plan.jobs.attempts import Course
from tunesmith_operator.plan.jobs.decide import JobKind, Models, plan_job, wants_job_events
from tunesmith_operator.plan.jobs.throttle import is_news, percent, rounded
from tunesmith_operator.plan.names import job_name, labels, name_of, namespace_of, uid_of
from tunesmith_operator.plan.pods.storage import resolve as resolve_storage
from tunesmith_operator.plan.pods.template import PodPlan, Stage
from tunesmith_operator.plan.spec.references import (
    References,
    Refused,
    Waiting,
    model_as_read,
    named_by,
    resolve_base,
)
from tunesmith_operator.plan.spec.validate import typed
from tunesmith_operator.plan.status.conditions import Wanted
from tunesmith_operator.plan.status.outlook import Outlook
from tunesmith_operator.plan.status.phases import Phase, Reason
from tunesmith_operator.plan.times import format_time
from tunesmith_operator.plan.types import Key, KindPlan, Observed, Plan, Progress, Raw, Reference, TokenFor

KIND = "FineTuneJob"
ROLE = "tune"
PREPARING = {ROLE: "prepare"}
VERBS = (Verb.PREPARE, Verb.FETCH, Verb.TRAIN, Verb.EXPORT)


def plan(resource: Raw, observed: Observed, now: datetime, config: OperatorConfig, token: TokenFor) -> Plan:
    """What a FineTuneJob needs next."""
    return plan_job(JOB, resource, observed, now, config, token)


def references(resource: Raw) -> frozenset[Reference]:
    """The resource that made its base model, if one did."""
    spec = typed(FineTuneJobSpec, resource)
    return frozenset() if isinstance(spec, Refused) else named_by(spec.model)


def _resolve(spec: FineTuneJobSpec, there: References) -> Models | Waiting | Refused:
    base = resolve_base(spec.model, there)
    return {ROLE: base} if isinstance(base, ResolvedModel) else base


def _pod(
    resource: Raw, spec: FineTuneJobSpec, role: str, model: ResolvedModel, attempt: int, config: OperatorConfig
) -> PodPlan:
    access = resolve_storage(spec.storage, config.store)
    namespace = namespace_of(resource)
    data = spec.to_dict()
    world = together.world(resource, spec, role, attempt, config.together)
    run = RunSpec(
        kind=KIND,
        name=name_of(resource),
        namespace=namespace,
        uid=uid_of(resource),
        attempt=attempt,
        spec=data,
        spec_hash=spec_hash(KIND, data),
        store=access.store,
        models=models_by_role(model),
        output_uri=spec.output.uri or f"{access.store.uri}/runs/{namespace}/{name_of(resource)}",
        progress_url=config.progress_url,
        world=world,
    )
    image = config.images.runtime
    return PodPlan(
        init=(Stage(Verb.FETCH, image), Stage(Verb.TRAIN, image, computes=True)),
        main=Stage(Verb.EXPORT, image),
        run=run,
        resources=spec.resources,
        settings=spec.pod,
        access=access,
        pull_policy=config.images.pull_policy,
        labels=labels(resource, role),
        restart_policy="Never",
        subdomain=together.name(resource, role) if spec.parallelism.nodes > 1 else None,
        affinity=together.affinity(spec.parallelism, job_name(resource, role, attempt)),
        shared_memory=together.shared_memory(spec.resources, world),
    )


def _services(resource: Raw, spec: FineTuneJobSpec) -> tuple[Raw, ...]:
    return (together.service(resource, ROLE),) if spec.parallelism.nodes > 1 else ()


def _gets(resource: Raw) -> frozenset[Key]:
    spec = typed(FineTuneJobSpec, resource)
    wanted = () if isinstance(spec, Refused) else _services(resource, spec)
    return frozenset(Key("Service", name_of(one)) for one in wanted)


def _tell(resource: Raw, spec: FineTuneJobSpec, courses: Sequence[Course], observed: Observed, now: datetime) -> Raw:
    """What is known so far: reports of the containers that are over, then what was pushed."""
    old, course = resource.get("status") or {}, courses[0]
    name = name_of(course.job) if course.job else ""
    fields: Raw = {"specHash": spec_hash(KIND, spec.to_dict()), **_results(course)}
    latest = observed.progress.get(name)
    if latest and is_news(old.get("progress"), latest):
        fields |= {key: value for key, value in _pushed(latest).items() if key not in fields}
    return fields


def _results(course: Course) -> Raw:
    """Fields of status from the reports, later containers over earlier ones."""
    reports = [course.reports[verb] for verb in VERBS if verb in course.reports]
    fields: Raw = {}
    if course.run and course.has_begun and (course.found or not course.prepares):
        fields["model"] = model_as_read(course.run.subject, course.found)
    for report in reports:
        fields |= _reported(report)
    return fields


def _reported(report: RunReport) -> Raw:
    data = report.to_dict()
    names = ("runUri", "artifacts", "rows", "metrics", "resumedFromStep", "lastCheckpoint")
    return {name: data[name] for name in names if name in data}


def _pushed(latest: Progress) -> Raw:
    report = latest.report
    data = report.to_dict()
    shown = (
        "stage",
        "step",
        "totalSteps",
        "epoch",
        "loss",
        "evalLoss",
        "learningRate",
        "tokensPerSecond",
        "etaSeconds",
    )
    progress: Raw = {name: data[name] for name in shown if name in data}
    progress["stage"] = report.stage[:253]
    progress |= {"percent": percent(report.step, report.total_steps), "updated": format_time(latest.time)}
    beside: Raw = {name: data[name] for name in ("rows", "lastCheckpoint", "resumedFromStep") if name in data}
    return {"progress": rounded(progress), **beside}


def _finish(resource: Raw, spec: FineTuneJobSpec, courses: Sequence[Course], now: datetime) -> Outlook:
    old, course = resource.get("status") or {}, courses[0]
    fields = _results(course)
    adopted = course.result.outcome is Outcome.ADOPTED
    reason = Reason.ADOPTED_EXISTING if adopted else Reason.COMPLETED
    made = ", ".join(f"{one['name']} {one['uri']}" for one in fields.get("artifacts") or []) or "nothing"
    message = f"found finished in the store: {made}" if adopted else f"made {made}"
    steps = (fields.get("metrics") or {}).get("steps") or (old.get("progress") or {}).get("totalSteps") or 0
    done = {"step": steps, "totalSteps": steps, "percent": 100, "updated": format_time(now)}
    progress = {name: value for name, value in (old.get("progress") or {}).items() if name != "etaSeconds"}
    return Outlook(
        Phase.SUCCEEDED,
        reason,
        message,
        ready=True,
        fields={**fields, "progress": {**progress, "stage": "export", **done}},
        conditions=(Wanted("Succeeded", True, reason, message),),
    )


JOB: JobKind[FineTuneJobSpec] = JobKind(
    kind=KIND,
    spec=FineTuneJobSpec,
    roles=lambda spec: (ROLE,),
    refusals=lambda spec, config: together.refusals(spec),
    resolve=_resolve,
    pod=_pod,
    tell=_tell,
    finish=_finish,
    services=_services,
    pods=lambda spec: spec.parallelism.nodes,
    preparing=PREPARING,
)

FINE_TUNE_JOB = KindPlan(
    kind=KIND,
    lists=("Job", "Pod"),
    gets=_gets,
    references=references,
    wants_events=wants_job_events,
    plan=plan,
)
