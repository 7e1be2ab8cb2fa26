"""Resolving references: from the resources that a spec names to the URIs of their models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tunesmith_api.catalogue import name_uri
from tunesmith_api.common import AdapterSource, ModelSource
from tunesmith_api.inferenceservice import Adapter
from tunesmith_api.method_facts import HEAD_METHODS, Method
from tunesmith_api.run import NamedAdapter, ResolvedModel, RunReport
from tunesmith_api.status import LANGUAGE_MODELS, ArtifactType
from tunesmith_api.training import Until
from tunesmith_operator.plan.phases import Phase, Reason, is_final
from tunesmith_operator.plan.types import Raw, Reference


@dataclass(frozen=True)
class Waiting:
    """The named resource does not exist or has no model yet."""

    reason: Reason
    text: str
    is_stalled: bool = False
    """Whether the wait will not end until somebody changes something."""


@dataclass(frozen=True)
class Refused:
    """The reference cannot be resolved, whatever happens to the named resource."""

    text: str
    hint: str = ""
    """What to do; empty if `text` contains it."""


WHOLE = "spec.export.merge: true and spec.until: export"
"""The settings with which a FineTuneJob publishes a whole model."""
References = Mapping[Reference, Raw | None]


def referenced_by(*sources: ModelSource | AdapterSource | Adapter | None) -> frozenset[Reference]:
    """Return the resources that models and adapters name."""
    kinds = {"fine_tune_job": "FineTuneJob", "inference_service": "InferenceService"}
    return frozenset(
        Reference(kind, named.name)
        for source in sources
        for field, kind in kinds.items()
        if (named := getattr(source, field, None))
    )


def resolve(
    source: ModelSource, references: References, preferred: tuple[ArtifactType, ...] = LANGUAGE_MODELS
) -> ResolvedModel | Waiting | Refused:
    """Resolve the model of `source`: of a FineTuneJob, the first of the `preferred` artifacts that it has."""
    if source.fine_tune_job:
        found = _finished(source.fine_tune_job.name, references)
        model = found if isinstance(found, Waiting) else _artifact(found, preferred)
    elif source.inference_service:
        model = _served(source.inference_service.name, references)
    else:
        model = ResolvedModel(uri=source.uri or name_uri(str(source.name)))
    return model if isinstance(model, Waiting | Refused) else with_trust(model, source.trust_remote_code)


def resolve_base(source: ModelSource, references: References) -> ResolvedModel | Waiting | Refused:
    """Resolve a whole model of a tuning, its base or its teacher, which an adapter cannot be."""
    model = resolve(source, references)
    if isinstance(model, ResolvedModel) and model.base:
        return Refused(
            f"{describe(source)} has published an adapter only, and a tuning needs whole models",
            f"create {describe(source)} again with {WHOLE}",
        )
    return model


def resolve_reward_model(source: ModelSource, references: References) -> ResolvedModel | Waiting | Refused:
    """Resolve a model that scores answers."""
    return resolve(source, references, (ArtifactType.REWARD_MODEL,))


def resolve_adapter(adapter: Adapter, references: References) -> NamedAdapter | Waiting | Refused:
    """Resolve an adapter of an InferenceService."""
    model = resolve_adapter_source(adapter, references)
    return model if isinstance(model, Waiting | Refused) else NamedAdapter(name=adapter.name, model=model)


def resolve_adapter_source(
    source: AdapterSource | Adapter, references: References
) -> ResolvedModel | Waiting | Refused:
    """Resolve an adapter. That of a FineTuneJob has its base."""
    if not source.fine_tune_job:
        return ResolvedModel(uri=str(source.uri))
    found = _finished(source.fine_tune_job.name, references)
    return found if isinstance(found, Waiting) else _artifact(found, (ArtifactType.ADAPTER,))


def with_trust(model: ResolvedModel, trust_remote_code: bool) -> ResolvedModel:
    """Return `model` and its base with the permission to run their code set."""
    base = with_trust(model.base, trust_remote_code) if model.base else None
    return model.model_copy(update={"trust_remote_code": trust_remote_code, "base": base})


def describe(source: ModelSource) -> str:
    """Return the name of a model for messages."""
    if source.fine_tune_job:
        return f"FineTuneJob {source.fine_tune_job.name}"
    if source.inference_service:
        return f"InferenceService {source.inference_service.name}"
    return source.uri or f"model {source.name}"


def _finished(name: str, references: References) -> Raw | Waiting:
    job = references.get(Reference("FineTuneJob", name))
    if job is None:
        return Waiting(Reason.WAITING_FOR_MODEL, f"FineTuneJob {name}, which does not exist in this namespace")
    status = job.get("status") or {}
    phase = status.get("phase") or Phase.PENDING
    if phase == Phase.FAILED:
        why = f"FineTuneJob {name}, which has failed ({status.get('reason')}): {remedy(job, ' or name another model')}"
        return Waiting(Reason.WAITING_FOR_MODEL, why, is_stalled=True)
    if phase != Phase.SUCCEEDED:
        return wait_for_resource(Reason.WAITING_FOR_MODEL, f"FineTuneJob {name} to succeed; it is {phase}", status)
    return job


def remedy(job: Raw, otherwise: str = "") -> str:
    """Return what to do about a failed job; for one that is not final, its message."""
    message = job["status"].get("message")
    return str(message) if message and not is_final(job) else f"see its status, then create it again{otherwise}"


def wait_for_resource(reason: Reason, text: str, status: Raw) -> Waiting:
    """Return the wait for a resource with this status. If it is Stalled itself, the wait is too, with its reason."""
    conditions: list[Raw] = status.get("conditions") or []
    types = {condition.get("type"): condition for condition in conditions if condition.get("status") == "True"}
    stalled = types.get("Stalled")
    if stalled is None:
        return Waiting(reason, text)
    return Waiting(reason, f"{text} ({stalled.get('reason')}: {stalled.get('message')})", is_stalled=True)


def _artifact(job: Raw, preferred: tuple[ArtifactType, ...]) -> ResolvedModel | Refused:
    status = job["status"]
    made = {artifact.get("name"): artifact for artifact in status.get("artifacts") or []}
    name = next((name for name in preferred if name in made), None)
    if name is None:
        wanted, has = " or ".join(preferred), ", ".join(sorted(map(str, made))) or "nothing"
        return Refused(
            f"FineTuneJob {job['metadata']['name']} has published {has}, but {wanted} is needed",
            _other_model(job, preferred),
        )
    model = ResolvedModel(uri=made[name]["uri"], digest=made[name].get("digest"))
    if name is not ArtifactType.ADAPTER:
        return model
    base = status.get("model") or {}
    named = job["spec"]["model"]
    uri = base.get("uri") or named.get("uri") or (name_uri(named["name"]) if named.get("name") else None)
    if not uri:
        return Refused(f"FineTuneJob {job['metadata']['name']} names no base model of its adapter")
    return model.model_copy(update={"base": ResolvedModel(uri=uri, digest=base.get("digest"))})


def _other_model(job: Raw, wanted: tuple[ArtifactType, ...]) -> str:
    """Return what to do about a job that has published none of the `wanted` artifacts, which another resource needs."""
    method, until = job["spec"].get("method", Method.SFT), job["spec"].get("until", Until.EXPORT)
    if ArtifactType.REWARD_MODEL in wanted:
        if method != Method.REWARD:
            return f"name a FineTuneJob of method {Method.REWARD}: a model of method {method} scores no answers"
        return f"create FineTuneJob {job['metadata']['name']} again with {WHOLE}"
    if method in HEAD_METHODS:
        return f"name a FineTuneJob of another method: a model of method {method} writes no text"
    change = "spec.tuner: lora" if Until(until).trains else f"spec.until: {Until.EXPORT} instead of {until}"
    return f"create FineTuneJob {job['metadata']['name']} again with {change}"


def _served(name: str, references: References) -> ResolvedModel | Waiting:
    service = references.get(Reference("InferenceService", name))
    if service is None:
        return Waiting(Reason.WAITING_FOR_MODEL, f"InferenceService {name}, which does not exist in this namespace")
    status = service.get("status") or {}
    model = status.get("model") or {}
    if not model.get("uri"):
        return wait_for_resource(Reason.WAITING_FOR_MODEL, f"InferenceService {name} to serve a model", status)
    base = ResolvedModel(uri=model["base"]) if model.get("base") else None
    return ResolvedModel(uri=model["uri"], digest=model.get("digest"), base=base)


def model_status(model: ResolvedModel) -> Raw:
    """Return a model as status shows it."""
    shown = {"uri": model.uri, "digest": model.digest, "base": model.base.uri if model.base else None}
    return {name: value for name, value in shown.items() if value is not None}


def fetched_model_status(model: ResolvedModel, fetched: RunReport | None) -> Raw:
    """Return a model as status shows it, with the URI and digest that fetch reported after an import."""
    reported = {"uri": fetched.model_uri, "digest": model.digest or fetched.model_digest} if fetched else {}
    return {**model_status(model), **{name: value for name, value in reported.items() if value}}
