"""Which version a service is to have: the one that its spec asks for, if it may and can be; else what was before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tunesmith_api.engines import resolve_engine
from tunesmith_api.inferenceservice import Engine, InferenceServiceSpec, RolledBack
from tunesmith_api.run import NamedAdapter, ResolvedModel, RunSpec
from tunesmith_operator.plan.config import OperatorConfig
from tunesmith_operator.plan.inferenceservice.deployment import pod_template
from tunesmith_operator.plan.inferenceservice.promotion import Blocked, passed_before, promoted
from tunesmith_operator.plan.inferenceservice.versions import Versions, what_asks
from tunesmith_operator.plan.names import namespace_of
from tunesmith_operator.plan.pods import engines
from tunesmith_operator.plan.pods.template import run_spec_of
from tunesmith_operator.plan.spec.references import References, Refused, Waiting, resolve, resolve_adapter
from tunesmith_operator.plan.spec.validate import unacceptable
from tunesmith_operator.plan.types import Raw


@dataclass(frozen=True)
class Target:
    """The version to have, and why it is not the one that the spec asks for."""

    template: Raw | None
    """Pods of that version; None where there is none to serve."""
    candidate: ResolvedModel | None = None
    """The model that the spec asks for, as far as it is known."""
    obstacle: Waiting | Blocked | Refused | None = None
    serves_it: bool = False
    """The model that has not passed is what is deployed: its gate or its verdict came later."""
    given_up: RolledBack | None = None
    """The spec's version was tried and was not ready in time."""
    postponed: bool = False
    """The spec's version comes with the next pods: there are to be none now."""

    @property
    def is_wanted(self) -> bool:
        """Whether it is the version that the spec asks for."""
        return not (self.obstacle or self.given_up or self.postponed)


def choose(
    resource: Raw, spec: InferenceServiceSpec, references: References, versions: Versions, config: OperatorConfig
) -> Target:
    """The version of the spec if it may be served and has not failed yet; else what is deployed stays as it is."""
    wanted = _wanted(resource, spec, references, versions, config)
    record, before = given_up_before(resource), versions.last_ready()
    if record and before and wanted.template and _asks_again(wanted.template, spec, record):
        return replace(wanted, template=before, given_up=record)
    # Time to get ready is counted by the Deployment controller, from when a version gets its first pod.
    if no_pods(spec) and versions.served and not wanted.obstacle:
        held = next(iter(versions.held()), None)
        return replace(wanted, template=held, postponed=True) if held not in (None, wanted.template) else wanted
    return wanted


def no_pods(spec: InferenceServiceSpec) -> bool:
    """Whether there are to be no pods."""
    return spec.suspend or spec.replicas == 0


def given_up_before(resource: Raw) -> RolledBack | None:
    """What status remembers of a version that was not ready in time."""
    record = (resource.get("status") or {}).get("rolledBack")
    try:
        return RolledBack.model_validate(record) if isinstance(record, Mapping) else None
    except ValueError:
        return None


def _asks_again(template: Raw, spec: InferenceServiceSpec, record: RolledBack) -> bool:
    """Whether `template` is what was given up; earlier operators have recorded the chosen engine."""
    return record.asked in {what_asks(template, spec.rollout, engine) for engine in (spec.engine, None)}


def _wanted(
    resource: Raw, spec: InferenceServiceSpec, references: References, versions: Versions, config: OperatorConfig
) -> Target:
    """The version of the spec if it may be served; else what is deployed."""
    held = next(iter(versions.held()), None)
    engine = resolve_engine(spec.engine, spec.resources.accelerator, engines.installed(config.images))
    unfit = engines.refusals(engine, spec.resources.accelerator, config.images)
    if wrong := [*unacceptable("InferenceService", spec, config, namespace_of(resource)), *unfit]:
        return Target(held, obstacle=Refused("; ".join(wrong)))
    model = resolve(spec.model, references)
    adapters = _adapters(spec, references)
    if isinstance(model, Waiting | Refused):
        return Target(held, obstacle=model)
    if isinstance(adapters, Waiting | Refused):
        return Target(held, model, adapters)
    allowed = promoted(spec.promotion, spec.model, model, references)
    served = run_spec_of(held) if held else None
    if not isinstance(allowed, ResolvedModel) and served and _is_the_same(served, spec, model):
        before = passed_before(resource.get("status") or {}, served.subject)
        allowed = promoted(spec.promotion, spec.model, served.subject, references, before)
        if not isinstance(allowed, ResolvedModel):
            return Target(held, model, allowed, serves_it=True)
    if not isinstance(allowed, ResolvedModel):
        return Target(held, model, allowed)
    fresh = pod_template(resource, spec, allowed, adapters, config)
    return Target(versions.same(fresh, any_engine=spec.engine is Engine.AUTO), allowed)


def _is_the_same(served: RunSpec, spec: InferenceServiceSpec, model: ResolvedModel) -> bool:
    """Whether `model` is what is deployed already."""
    if model.digest or served.subject.uri == model.uri:
        return (served.subject.uri, served.subject.digest) == (model.uri, model.digest)
    return bool(served.spec.get("model") == spec.model.to_dict())


def _adapters(spec: InferenceServiceSpec, there: References) -> list[NamedAdapter] | Waiting | Refused:
    found: list[NamedAdapter] = []
    for adapter in spec.adapters or []:
        resolved = resolve_adapter(adapter, there)
        if not isinstance(resolved, NamedAdapter):
            return resolved
        found.append(resolved)
    return found
