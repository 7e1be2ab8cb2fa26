"""EvalJob: one Job for the model and one for the baseline, side by side; then results, gates and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from tunesmith_api.engines import resolve_engine
from tunesmith_api.evaljob import EvalJobSpec, Result, Verdict
from tunesmith_api.hashing import spec_hash
from tunesmith_api.run import READY_PORT, ResolvedModel, RunSpec, Verb, models_by_role
from tunesmith_operator.plan.config import OperatorConfig
from tunesmith_operator.plan.evaljob.gates import compared, judged, short, verdict
from tunesmith_operator.plan.jobs.attempts import Course, State
from tunesmith_operator.plan.jobs.decide import JobKind, Models, plan_job, wants_job_events
from tunesmith_operator.plan.jobs.throttle import is_news, percent, rounded
from tunesmith_operator.plan.names import labels, name_of, namespace_of, uid_of
from tunesmith_operator.plan.pods import engines
from tunesmith_operator.plan.pods.storage import resolve as resolve_storage
from tunesmith_operator.plan.pods.template import PodPlan, Stage, http_probe
from tunesmith_operator.plan.spec.references import References, Refused, Waiting, model_as_read, named_by, resolve
from tunesmith_operator.plan.spec.validate import typed
from tunesmith_operator.plan.status.conditions import Wanted
from tunesmith_operator.plan.status.outlook import Outlook
from tunesmith_operator.plan.status.phases import Phase, Reason
from tunesmith_operator.plan.times import format_time
from tunesmith_operator.plan.types import KindPlan, Observed, Plan, Progress, Raw, Reference, TokenFor

KIND = "EvalJob"
MODEL, BASELINE = "eval-model", "eval-baseline"
ROLES = {MODEL: "model", BASELINE: "baseline"}
"""Role of a Job -> the field of spec and status that it is about."""
PREPARING = {MODEL: "prepare-model", BASELINE: "prepare-base"}
"""As short as a Job's name must be."""
STARTUP_PERIOD, STARTUP_FAILURES = 2, 1800
"""The engine may take an hour to load its model; its pod is given up earlier where it ends again and again."""


def plan(resource: Raw, observed: Observed, now: datetime, config: OperatorConfig, token: TokenFor) -> Plan:
    """What an EvalJob needs next."""
    return plan_job(JOB, resource, observed, now, config, token)


def references(resource: Raw) -> frozenset[Reference]:
    """The resources that made, or serve, its model and its baseline."""
    spec = typed(EvalJobSpec, resource)
    return frozenset() if isinstance(spec, Refused) else named_by(spec.model, spec.baseline)


def _roles(spec: EvalJobSpec) -> Sequence[str]:
    return (MODEL, BASELINE) if spec.baseline else (MODEL,)


def _refusals(spec: EvalJobSpec, config: OperatorConfig) -> Sequence[str]:
    accelerator = spec.resources.accelerator
    return engines.refusals(
        resolve_engine(spec.engine, accelerator, engines.installed(config.images)), accelerator, config.images
    )


def _resolve(spec: EvalJobSpec, there: References) -> Models | Waiting | Refused:
    """Both models at once: a baseline alone says nothing, and the resource would not know which one it waits for."""
    found: dict[str, ResolvedModel] = {}
    for role in _roles(spec):
        model = resolve(getattr(spec, ROLES[role]), there)
        if not isinstance(model, ResolvedModel):
            return model
        found[role] = model
    return found


def _pod(
    resource: Raw, spec: EvalJobSpec, role: str, model: ResolvedModel, attempt: int, config: OperatorConfig
) -> PodPlan:
    access = resolve_storage(spec.storage, config.store)
    previous = (resource.get("status") or {}).get("engine")  # scores of different engines are not comparable
    engine = resolve_engine(spec.engine, spec.resources.accelerator, engines.installed(config.images), previous)
    data = {**spec.to_dict(), "engine": str(engine)}
    run = RunSpec(
        kind=KIND,
        name=name_of(resource),
        namespace=namespace_of(resource),
        uid=uid_of(resource),
        attempt=attempt,
        role=ROLES[role],
        spec=data,
        spec_hash=_scoring_hash(data),
        store=access.store,
        models=models_by_role(model),
        output_uri=spec.output.uri or f"{access.store.uri}/evals",
        progress_url=config.progress_url,
    )
    sidecar = {
        "restartPolicy": "Always",
        "startupProbe": http_probe("/ready", READY_PORT, STARTUP_PERIOD, STARTUP_FAILURES),
    }
    serve = Stage(Verb.SERVE, str(engines.image(engine, config.images)), computes=True, extra=sidecar)
    return PodPlan(
        init=(Stage(Verb.FETCH, config.images.runtime), serve),
        main=Stage(Verb.EVALUATE, config.images.runtime, light=True),
        run=run,
        resources=spec.resources,
        settings=spec.pod,
        access=access,
        pull_policy=config.images.pull_policy,
        labels=labels(resource, role),
        restart_policy="Never",
    )


def _scoring_hash(spec: Raw) -> str:
    """Hash of how a model is scored, whichever it is: a baseline scored once serves every EvalJob that asks the same."""
    return spec_hash(KIND, {name: value for name, value in spec.items() if name not in ("model", "baseline", "gates")})


def _tell(resource: Raw, spec: EvalJobSpec, courses: Sequence[Course], observed: Observed, now: datetime) -> Raw:
    """The models, exactly, as soon as they are known; and what was pushed."""
    old = resource.get("status") or {}
    fields: Raw = {"specHash": spec_hash(KIND, spec.to_dict())}
    for course in courses:
        if course.run and course.has_begun and (course.found or not course.prepares):
            fields[ROLES[course.role]] = model_as_read(course.run.subject, course.found)
            fields["engine"] = course.run.spec.get("engine")
    pushed = [
        (ROLES[course.role], latest)
        for course in courses
        if course.job and course.state is not State.SUCCEEDED and (latest := observed.progress.get(name_of(course.job)))
    ]
    if pushed:
        role, latest = max(pushed, key=lambda one: one[1].time)
        if is_news(old.get("progress"), latest):
            fields["progress"] = _pushed(role, latest)
    return fields


def _pushed(role: str, latest: Progress) -> Raw:
    report = latest.report
    progress = {
        "stage": f"{role}: {report.stage}"[:253],
        "step": report.step,
        "totalSteps": report.total_steps,
        "percent": percent(report.step, report.total_steps),
        "updated": format_time(latest.time),
    }
    return rounded(progress)


def _finish(resource: Raw, spec: EvalJobSpec, courses: Sequence[Course], now: datetime) -> Outlook:
    scores = {course.role: course.result.results or [] for course in courses}
    results = compared(scores[MODEL], scores.get(BASELINE, []))
    gates = judged(spec.gates or [], results)
    outcome = verdict(gates)
    passed = outcome is Verdict.PASSED
    reason = Reason.COMPLETED if not gates else Reason.GATES_PASSED if passed else Reason.GATES_FAILED
    message = "; ".join(f"{gate.benchmark}: {gate.message}" for gate in gates) or _scores(results)
    return Outlook(
        Phase.SUCCEEDED,
        reason,
        message,
        ready=True,
        fields={
            "results": [result.to_dict() for result in results],
            "gates": [gate.to_dict() for gate in gates] or None,
            "verdict": str(outcome),
            "score": short(results[0].value)[0] if results else None,
            "artifacts": _artifacts(courses) or None,
            "progress": None,
        },
        conditions=(
            Wanted("Succeeded", True, reason, message),
            Wanted("Passed", passed, reason, message),
        ),
    )


def _scores(results: Sequence[Result]) -> str:
    return "; ".join(f"{one.benchmark} {one.metric} {short(one.value)[0]}" for one in results[:8]) or "no scores"


def _artifacts(courses: Sequence[Course]) -> list[Raw]:
    """Reports by name; the baseline's are told apart by a prefix."""
    return [
        {**artifact.to_dict(), "name": artifact.name if course.role == MODEL else f"baseline-{artifact.name}"}
        for course in courses
        for artifact in course.result.artifacts or []
    ]


JOB: JobKind[EvalJobSpec] = JobKind(
    kind=KIND,
    spec=EvalJobSpec,
    roles=_roles,
    refusals=_refusals,
    resolve=_resolve,
    pod=_pod,
    tell=_tell,
    finish=_finish,
    role_names=ROLES,
    preparing=PREPARING,
)

EVAL_JOB = KindPlan(
    kind=KIND,
    lists=("Job", "Pod"),
    gets=lambda resource: frozenset(),
    references=references,
    wants_events=wants_job_events,
    plan=plan,
)
