"""FineTuneJob: one role, whose attempts fetch, train and export in one pod, or in several that train together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tunesmith_api.batches import job_refusal
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.inferenceservice import Engine
from tunesmith_api.refusal import Refusal
from tunesmith_api.run import ModelRole, ResolvedModel
from tunesmith_operator.plan.config import OperatorConfig
from tunesmith_operator.plan.finetunejob import distributed
from tunesmith_operator.plan.finetunejob.pod import plan_pod, samples_with_vllm
from tunesmith_operator.plan.finetunejob.report import complete, report
from tunesmith_operator.plan.finetunejob.roles import KIND, tuning
from tunesmith_operator.plan.jobs.attempts import Role
from tunesmith_operator.plan.jobs.decide import kind_plan
from tunesmith_operator.plan.jobs.kind import JobKind, Models
from tunesmith_operator.plan.names import name_of
from tunesmith_operator.plan.pods import engines
from tunesmith_operator.plan.spec.references import (
    References,
    Refused,
    Waiting,
    referenced_by,
    resolve_adapter_source,
    resolve_base,
    resolve_reward_model,
)
from tunesmith_operator.plan.spec.validate import parse_spec
from tunesmith_operator.plan.types import Key, Raw, Reference


def references(resource: Raw) -> frozenset[Reference]:
    """The resources that make its base model, the adapter that it goes on with, its teacher and its reward model, if it names them."""
    spec = parse_spec(FineTuneJobSpec, resource)
    if isinstance(spec, Refused):
        return frozenset()
    further = (spec.gkd.teacher if spec.gkd else None, spec.reward_model)
    return referenced_by(spec.model, spec.initial_adapter, *(each.source for each in further if each))


def gets(resource: Raw) -> frozenset[Key]:
    """The Service of several pods."""
    spec = parse_spec(FineTuneJobSpec, resource)
    services = () if isinstance(spec, Refused) else _services(resource, spec)
    return frozenset(Key("Service", name_of(service)) for service in services)


def _roles(spec: FineTuneJobSpec) -> Sequence[Role]:
    return (tuning(spec),)


def _refusals(spec: FineTuneJobSpec, config: OperatorConfig) -> Sequence[Refusal]:
    refusal = job_refusal(spec)
    return [*([refusal] if refusal else []), *_engine_refusals(spec, config)]


def _engine_refusals(spec: FineTuneJobSpec, config: OperatorConfig) -> Iterator[Refusal]:
    """Yield why the engine that samples has no image."""
    images = config.images_on(spec.resources.accelerator)
    if samples_with_vllm(spec) and engines.image(Engine.VLLM, images) is None:
        yield Refusal(
            f"{spec.method}.engine vllm has no image here",
            f"set images.engines.vllm in the chart's values, or spec.{spec.method}.engine: transformers",
        )


def _models(spec: FineTuneJobSpec, references: References) -> Models | Waiting | Refused:
    """The base, the adapter that the training goes on with, the teacher and the reward model; or the first obstacle."""
    found = {ModelRole.BASE: resolve_base(spec.model, references)}
    if spec.initial_adapter:
        found[ModelRole.INITIAL] = resolve_adapter_source(spec.initial_adapter, references)
    if spec.gkd:
        found[ModelRole.TEACHER] = resolve_base(spec.gkd.teacher.source, references)
    if spec.reward_model:
        found[ModelRole.REWARD] = resolve_reward_model(spec.reward_model.source, references)
    obstacle = next((each for each in found.values() if not isinstance(each, ResolvedModel)), None)
    return obstacle or {tuning(spec): {role: each for role, each in found.items() if isinstance(each, ResolvedModel)}}


def _services(resource: Raw, spec: FineTuneJobSpec) -> tuple[Raw, ...]:
    return (distributed.service(resource, tuning(spec).label),) if tuning(spec).pods > 1 else ()


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

FINE_TUNE_JOB = kind_plan(JOB, references, gets)
