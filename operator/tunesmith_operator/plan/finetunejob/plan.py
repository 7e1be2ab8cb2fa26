"""FineTuneJob: one role, whose attempts fetch, train and export in one pod, or in several that train together."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from tunesmith_api.batches import batch_refusal
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.run import ResolvedModel
from tunesmith_operator.plan.config import OperatorConfig
from tunesmith_operator.plan.finetunejob import distributed
from tunesmith_operator.plan.finetunejob.pod import KIND, plan_pod
from tunesmith_operator.plan.finetunejob.report import complete, report
from tunesmith_operator.plan.jobs.attempts import Role
from tunesmith_operator.plan.jobs.decide import plan_job
from tunesmith_operator.plan.jobs.kind import JobKind, Models
from tunesmith_operator.plan.jobs.schedule import wants_job_events
from tunesmith_operator.plan.names import name_of
from tunesmith_operator.plan.spec.references import References, Refused, Waiting, named_by, resolve_base
from tunesmith_operator.plan.spec.validate import typed
from tunesmith_operator.plan.types import Key, KindPlan, Observed, Plan, Raw, Reference, TokenFor


def plan(resource: Raw, observed: Observed, now: datetime, config: OperatorConfig, token: TokenFor) -> Plan:
    """The plan of a FineTuneJob."""
    return plan_job(JOB, resource, observed, now, config, token)


def references(resource: Raw) -> frozenset[Reference]:
    """The resource that makes its base model, if it names one."""
    spec = typed(FineTuneJobSpec, resource)
    return frozenset() if isinstance(spec, Refused) else named_by(spec.model)


def gets(resource: Raw) -> frozenset[Key]:
    """The Service of several pods."""
    spec = typed(FineTuneJobSpec, resource)
    services = () if isinstance(spec, Refused) else _services(resource, spec)
    return frozenset(Key("Service", name_of(service)) for service in services)


def _role(spec: FineTuneJobSpec) -> Role:
    return Role(label="tune", preparation_label="prepare", pods=spec.parallelism.nodes)


def _roles(spec: FineTuneJobSpec) -> Sequence[Role]:
    return (_role(spec),)


def _refusals(spec: FineTuneJobSpec, config: OperatorConfig) -> Sequence[str]:
    refusal = batch_refusal(spec.training.global_batch_size, spec.parallelism.nodes * spec.resources.processes)
    return [refusal] if refusal else []


def _models(spec: FineTuneJobSpec, references: References) -> Models | Waiting | Refused:
    base = resolve_base(spec.model, references)
    return {_role(spec): base} if isinstance(base, ResolvedModel) else base


def _services(resource: Raw, spec: FineTuneJobSpec) -> tuple[Raw, ...]:
    return (distributed.service(resource, _role(spec).label),) if spec.parallelism.nodes > 1 else ()


JOB: JobKind[FineTuneJobSpec] = JobKind(
    name=KIND,
    spec_type=FineTuneJobSpec,
    roles=_roles,
    find_refusals=_refusals,
    resolve_models=_models,
    plan_pod=plan_pod,
    report=report,
    complete=complete,
    services=_services,
)

FINE_TUNE_JOB = KindPlan(
    kind=KIND,
    lists=("Job", "Pod"),
    gets=gets,
    references=references,
    wants_events=wants_job_events,
    plan=plan,
)
