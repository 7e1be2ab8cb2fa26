"""What a resource names, and what the named resources have made: from a ModelSource to URIs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tunesmith_api.common import ModelSource
from tunesmith_api.inferenceservice import Adapter
from tunesmith_api.run import NamedAdapter, ResolvedModel, RunReport
from tunesmith_api.status import LANGUAGE_MODELS, ArtifactType
from tunesmith_operator.plan.phases import Phase, Reason, is_final
from tunesmith_operator.plan.types import Raw, Reference


@dataclass(frozen=True)
class Waiting:
    """It is not there yet; it may come."""

    reason: Reason
    text: str
    in_vain: bool = False
    """It will not come unless somebody changes something."""


@dataclass(frozen=True)
class Refused:
    """It cannot be, whatever comes: the sentence that says why and what to do."""

    text: str
    hint: str = ""
    """What to do, where `text` does not say it."""


References = Mapping[Reference, Raw | None]


def named_by(*sources: ModelSource | Adapter | None) -> frozenset[Reference]:
    """The resources that models and adapters name."""
    kinds = {"fine_tune_job": "FineTuneJob", "inference_service": "InferenceService"}
    return frozenset(
        Reference(kind, named.name)
        for source in sources
        for field, kind in kinds.items()
        if (named := getattr(source, field, None))
    )


def resolve(source: ModelSource, references: References) -> ResolvedModel | Waiting | Refused:
    """The model that `source` stands for."""
    if source.fine_tune_job:
        found = _finished(source.fine_tune_job.name, references)
        model = found if isinstance(found, Waiting) else _artifact(found, LANGUAGE_MODELS)
    elif source.inference_service:
        model = _served(source.inference_service.name, references)
    else:
        model = ResolvedModel(uri=str(source.uri))
    return model if isinstance(model, Waiting | Refused) else trusting(model, source.trust_remote_code)


def resolve_base(source: ModelSource, references: References) -> ResolvedModel | Waiting | Refused:
    """The model that `source` stands for, to be tuned: an adapter alone is none."""
    model = resolve(source, references)
    if isinstance(model, ResolvedModel) and model.base:
        return Refused(
            f"{describe(source)} made an adapter only, which cannot be tuned further: create it again with spec.export.merge: true"
        )
    return model


def resolve_adapter(adapter: Adapter, references: References) -> NamedAdapter | Waiting | Refused:
    """The adapter that an InferenceService names."""
    if not adapter.fine_tune_job:
        return NamedAdapter(name=adapter.name, model=ResolvedModel(uri=str(adapter.uri)))
    found = _finished(adapter.fine_tune_job.name, references)
    model = found if isinstance(found, Waiting) else _artifact(found, (ArtifactType.ADAPTER,))
    return model if isinstance(model, Waiting | Refused) else NamedAdapter(name=adapter.name, model=model)


def trusting(model: ResolvedModel, trust_remote_code: bool) -> ResolvedModel:
    """`model` and its base, with leave to run their code or without."""
    base = trusting(model.base, trust_remote_code) if model.base else None
    return model.model_copy(update={"trust_remote_code": trust_remote_code, "base": base})


def describe(source: ModelSource) -> str:
    """How messages name a model."""
    if source.fine_tune_job:
        return f"FineTuneJob {source.fine_tune_job.name}"
    if source.inference_service:
        return f"InferenceService {source.inference_service.name}"
    return str(source.uri)


def _finished(name: str, references: References) -> Raw | Waiting:
    job = references.get(Reference("FineTuneJob", name))
    if job is None:
        return Waiting(Reason.WAITING_FOR_MODEL, f"FineTuneJob {name}: there is none of that name in this namespace")
    status = job.get("status") or {}
    phase = status.get("phase") or Phase.PENDING
    if phase == Phase.FAILED:
        why = (
            f"FineTuneJob {name}, which has failed ({status.get('reason')}): {next_step(job, ' or name another model')}"
        )
        return Waiting(Reason.WAITING_FOR_MODEL, why, in_vain=True)
    if phase != Phase.SUCCEEDED:
        return held_up(Reason.WAITING_FOR_MODEL, f"FineTuneJob {name} to succeed; it is {phase}", status)
    return job


def next_step(job: Raw, otherwise: str = "") -> str:
    """What to do about a job that has failed; of one that may yet go on, why it does not."""
    message = job["status"].get("message")
    return str(message) if message and not is_final(job) else f"see its status, then create it again{otherwise}"


def held_up(reason: Reason, text: str, status: Raw) -> Waiting:
    """To wait for a resource of this status: in vain where it is Stalled itself, and then for its reason."""
    conditions: list[Raw] = status.get("conditions") or []
    stalled = next((one for one in conditions if one.get("type") == "Stalled" and one.get("status") == "True"), None)
    if stalled is None:
        return Waiting(reason, text)
    return Waiting(reason, f"{text} ({stalled.get('reason')}: {stalled.get('message')})", in_vain=True)


def _artifact(job: Raw, preferred: tuple[ArtifactType, ...]) -> ResolvedModel | Refused:
    status = job["status"]
    made = {artifact.get("name"): artifact for artifact in status.get("artifacts") or []}
    name = next((name for name in preferred if name in made), None)
    if name is None:
        wanted, has = " or ".join(preferred), ", ".join(sorted(map(str, made))) or "nothing"
        return Refused(
            f"FineTuneJob {job['metadata']['name']} made {has}, but {wanted} is needed: create it again with spec.tuner: lora"
        )
    model = ResolvedModel(uri=made[name]["uri"], digest=made[name].get("digest"))
    if name is not ArtifactType.ADAPTER:
        return model
    base = status.get("model") or {}
    uri = base.get("uri") or job["spec"]["model"].get("uri")
    if not uri:
        return Refused(f"FineTuneJob {job['metadata']['name']} does not say on which model its adapter goes")
    return model.model_copy(update={"base": ResolvedModel(uri=uri, digest=base.get("digest"))})


def _served(name: str, references: References) -> ResolvedModel | Waiting:
    service = references.get(Reference("InferenceService", name))
    if service is None:
        return Waiting(
            Reason.WAITING_FOR_MODEL, f"InferenceService {name}: there is none of that name in this namespace"
        )
    status = service.get("status") or {}
    model = status.get("model") or {}
    if not model.get("uri"):
        return held_up(Reason.WAITING_FOR_MODEL, f"InferenceService {name} to serve a model", status)
    base = ResolvedModel(uri=model["base"]) if model.get("base") else None
    return ResolvedModel(uri=model["uri"], digest=model.get("digest"), base=base)


def model_status(model: ResolvedModel) -> Raw:
    """A model as status shows it."""
    shown = {"uri": model.uri, "digest": model.digest, "base": model.base.uri if model.base else None}
    return {name: value for name, value in shown.items() if value is not None}


def model_as_read(model: ResolvedModel, fetched: RunReport | None) -> Raw:
    """The same, read from the store after an import, as fetch has told."""
    told = {"uri": fetched.model_uri, "digest": model.digest or fetched.model_digest} if fetched else {}
    return {**model_status(model), **{name: value for name, value in told.items() if value}}
