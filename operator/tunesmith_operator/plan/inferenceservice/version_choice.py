"""The version that a service should have: the one that its spec asks for if it may be served, otherwise the one before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tunesmith_api.common import ModelSource
from tunesmith_api.engines import resolve_engine
from tunesmith_api.inferenceservice import Adapter, Engine, InferenceServiceSpec, RolledBack
from tunesmith_api.refusal import Refusal
from tunesmith_api.run import NamedAdapter, ResolvedModel, RunSpec
from tunesmith_operator.plan.config import OperatorConfig
from tunesmith_operator.plan.inferenceservice.pod import pod_template
from tunesmith_operator.plan.inferenceservice.promotion import Blocked, promote, recorded_passes
from tunesmith_operator.plan.inferenceservice.versions import Versions, request_hash
from tunesmith_operator.plan.names import name_of, namespace_of
from tunesmith_operator.plan.pods import engines
from tunesmith_operator.plan.pods.template import run_spec_of
from tunesmith_operator.plan.spec.references import References, Refused, Waiting, resolve, resolve_adapter
from tunesmith_operator.plan.spec.served_adapters import unserved_adapters
from tunesmith_operator.plan.spec.validate import as_refused, spec_refusals
from tunesmith_operator.plan.types import Raw


@dataclass(frozen=True)
class Target:
    """The version to have, and why it is not the one that the spec asks for."""

    template: Raw | None
    """The pod template of the version; None if there is none to serve."""
    candidate: ResolvedModel | None = None
    """The model that the spec asks for, if it is known."""
    obstacle: Waiting | Blocked | Refused | None = None
    candidate_is_deployed: bool = False
    """The candidate is deployed already: the gate that it fails, or the verdict, came later."""
    given_up: RolledBack | None = None
    """The record of the spec's version if it was not ready in time."""
    is_postponed: bool = False
    """The spec's version is rolled out with the next pods: none are desired now."""

    @property
    def is_requested(self) -> bool:
        """Whether it is the version that the spec asks for."""
        return not (self.obstacle or self.given_up or self.is_postponed)


def choose_version(
    resource: Raw, spec: InferenceServiceSpec, references: References, versions: Versions, config: OperatorConfig
) -> Target:
    """The version of the spec if it may be served and was not given up; otherwise what is deployed."""
    wanted = _requested(resource, spec, references, versions, config)
    record, before = _recorded_rollback(resource), versions.last_ready
    if record and before and wanted.template and _repeats(wanted.template, spec, record):
        return replace(wanted, template=before, given_up=record)
    # The Deployment controller counts the time to become ready from a version's first pod.
    if has_no_pods(spec) and versions.served and not wanted.obstacle:
        kept = versions.fallback
        return replace(wanted, template=kept, is_postponed=True) if kept not in (None, wanted.template) else wanted
    return wanted


def has_no_pods(spec: InferenceServiceSpec) -> bool:
    """Whether the spec asks for no pods."""
    return spec.suspend or spec.replicas == 0


def _recorded_rollback(resource: Raw) -> RolledBack | None:
    """The version that was given up, by status."""
    record = (resource.get("status") or {}).get("rolledBack")
    try:
        return RolledBack.model_validate(record) if isinstance(record, Mapping) else None
    except ValueError:
        return None


def _repeats(template: Raw, spec: InferenceServiceSpec, record: RolledBack) -> bool:
    """Whether `template` is the version that was given up. Earlier releases have recorded the resolved engine."""
    return record.asked in {request_hash(template, spec.rollout, engine) for engine in (spec.engine, None)}


def _requested(
    resource: Raw, spec: InferenceServiceSpec, references: References, versions: Versions, config: OperatorConfig
) -> Target:
    """The version of the spec if it may be served; otherwise what is deployed, with the obstacle."""
    kept = versions.fallback
    if refusals := _refusals(resource, spec, config):
        return Target(kept, obstacle=as_refused(refusals))
    model, adapters = resolve(spec.model, references), _adapters(spec, references)
    if isinstance(model, Waiting | Refused):
        return Target(kept, obstacle=model)
    if isinstance(adapters, Waiting | Refused):
        return Target(kept, model, adapters)
    if unserved := list(unserved_adapters(_served_adapters(resource, spec, model), _engine(spec, config), references)):
        return Target(kept, model, as_refused(unserved))
    allowed = promote(spec.promotion, spec.model, model, references)
    deployed = run_spec_of(kept) if kept else None
    is_deployed = deployed is not None and _serves(deployed, spec, model)
    if deployed and is_deployed and not isinstance(allowed, ResolvedModel):
        recorded = recorded_passes(resource.get("status") or {}, deployed.subject)
        allowed = promote(spec.promotion, spec.model, deployed.subject, references, recorded)
    if not isinstance(allowed, ResolvedModel):
        return Target(kept, model, allowed, candidate_is_deployed=is_deployed)
    fresh = pod_template(resource, spec, allowed, adapters, config)
    return Target(versions.reuse(fresh, any_engine=spec.engine is Engine.AUTO), allowed)


def _refusals(resource: Raw, spec: InferenceServiceSpec, config: OperatorConfig) -> list[Refusal]:
    accelerator = spec.resources.accelerator
    return [
        *spec_refusals("InferenceService", spec, config, namespace_of(resource)),
        *engines.refusals(_engine(spec, config), accelerator, config.images_on(accelerator)),
    ]


def _engine(spec: InferenceServiceSpec, config: OperatorConfig) -> Engine:
    accelerator = spec.resources.accelerator
    return resolve_engine(spec.engine, accelerator, engines.installed(config.images_on(accelerator)))


def _served_adapters(
    resource: Raw, spec: InferenceServiceSpec, model: ResolvedModel
) -> Mapping[str, ModelSource | Adapter]:
    """The adapters that are served beside the base: those of the spec, and the model itself if it is one."""
    own: dict[str, ModelSource | Adapter] = {name_of(resource): spec.model} if model.base else {}
    return own | {adapter.name: adapter for adapter in spec.adapters or ()}


def _serves(deployed: RunSpec, spec: InferenceServiceSpec, model: ResolvedModel) -> bool:
    """Whether the deployed version serves `model`."""
    subject = deployed.subject
    if model.digest or subject.uri == model.uri:
        return (subject.uri, subject.digest) == (model.uri, model.digest)
    return bool(deployed.spec.get("model") == spec.model.to_dict())


def _adapters(spec: InferenceServiceSpec, references: References) -> list[NamedAdapter] | Waiting | Refused:
    found: list[NamedAdapter] = []
    for adapter in spec.adapters or []:
        resolved = resolve_adapter(adapter, references)
        if not isinstance(resolved, NamedAdapter):
            return resolved
        found.append(resolved)
    return found
