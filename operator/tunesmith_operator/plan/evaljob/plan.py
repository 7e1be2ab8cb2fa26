"""EvalJob: one role scores the model and one the baseline, in parallel; then the gates decide the verdict."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith_api.engines import resolve_engine
from tunesmith_api.evaljob import EvalJobSpec
from tunesmith_api.refusal import Refusal
from tunesmith_api.run import models_by_role
from tunesmith_operator.plan.config import OperatorConfig
from tunesmith_operator.plan.evaljob.pod import plan_pod
from tunesmith_operator.plan.evaljob.report import complete, report
from tunesmith_operator.plan.evaljob.roles import BASELINE, KIND, MODEL
from tunesmith_operator.plan.jobs.attempts import Role
from tunesmith_operator.plan.jobs.decide import kind_plan
from tunesmith_operator.plan.jobs.kind import JobKind, Models, ModelsOfRun
from tunesmith_operator.plan.pods import engines
from tunesmith_operator.plan.spec.references import References, Refused, Waiting, referenced_by, resolve
from tunesmith_operator.plan.spec.validate import parse_spec
from tunesmith_operator.plan.types import Raw, Reference


def references(resource: Raw) -> frozenset[Reference]:
    """The resources that make or serve its model and its baseline."""
    spec = parse_spec(EvalJobSpec, resource)
    return frozenset() if isinstance(spec, Refused) else referenced_by(spec.model, spec.baseline)


def _roles(spec: EvalJobSpec) -> Sequence[Role]:
    return (MODEL, BASELINE) if spec.baseline else (MODEL,)


def _refusals(spec: EvalJobSpec, config: OperatorConfig) -> Sequence[Refusal]:
    accelerator = spec.resources.accelerator
    images = config.images_on(accelerator)
    engine = resolve_engine(spec.engine, accelerator, engines.installed(images))
    return engines.refusals(engine, accelerator, images)


def _models(spec: EvalJobSpec, references: References) -> Models | Waiting | Refused:
    """The models of all roles, or the first obstacle: neither role starts before both models are known."""
    found: dict[Role, ModelsOfRun] = {}
    for role, source in ((MODEL, spec.model), (BASELINE, spec.baseline)):
        model = resolve(source, references) if source else None
        if isinstance(model, Waiting | Refused):
            return model
        if model:
            found[role] = models_by_role(model)
    return found


JOB: JobKind[EvalJobSpec] = JobKind(
    name=KIND,
    spec_type=EvalJobSpec,
    roles=_roles,
    find_refusals=_refusals,
    resolve_models=_models,
    plan_pod=plan_pod,
    report=report,
    complete=complete,
)

EVAL_JOB = kind_plan(JOB, references)
