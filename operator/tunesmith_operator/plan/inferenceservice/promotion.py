"""Whether a model has passed the EvalJobs in spec.promotion. A verdict counts for the exact model, not for another model of
the same name. Without a pass, the deployed version stays (`version_choice.choose_version`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from tunesmith_api.common import ModelSource
from tunesmith_api.evaljob import Verdict
from tunesmith_api.inferenceservice import Promotion
from tunesmith_api.run import ResolvedModel
from tunesmith_operator.plan.phases import Phase, Reason
from tunesmith_operator.plan.spec.references import References, Waiting, describe, remedy, wait_for_resource
from tunesmith_operator.plan.types import Raw, Reference


@dataclass(frozen=True)
class Blocked:
    """The model must not be served."""

    text: str
    """Which EvalJob has not passed it, and why."""


def promote(
    promotion: Promotion | None,
    source: ModelSource,
    model: ResolvedModel,
    references: References,
    recorded: frozenset[str] = frozenset(),
) -> ResolvedModel | Waiting | Blocked:
    """The model to serve if every EvalJob has passed it, otherwise the first obstacle.

    A hub model has no digest here: it is served from the copy that the EvalJob has scored, with its digest. A folder of
    object storage without a manifest has no digest at all: the verdict counts for the URI, whatever the folder contains
    now. `recorded`: EvalJobs that have passed this model before, which counts until an EvalJob fails it.
    """
    pinned = model
    for reference in promotion.eval_jobs if promotion else ():
        verdict = _verdict(reference.name, source, pinned, references, reference.name in recorded)
        if not isinstance(verdict, ResolvedModel):
            return verdict
        pinned = verdict
    return pinned


def recorded_passes(status: Raw, model: ResolvedModel) -> frozenset[str]:
    """The EvalJobs that have passed this model, by status."""
    passed: Sequence[Raw] = status.get("passed") or []
    same = (entry for entry in passed if (entry.get("uri"), entry.get("digest")) == (model.uri, model.digest))
    return frozenset(str(entry.get("evalJob")) for entry in same)


def passes_to_record(
    promotion: Promotion | None,
    source: ModelSource,
    model: ResolvedModel,
    references: References,
    recorded: frozenset[str],
) -> list[Raw]:
    """The EvalJobs that have passed this model, now or before, for status."""
    names = [reference.name for reference in promotion.eval_jobs] if promotion else []
    verdicts = {name: _verdict(name, source, model, references, name in recorded) for name in names}
    identity = {"uri": model.uri, **({"digest": model.digest} if model.digest else {})}
    return [{"evalJob": name, **identity} for name, verdict in verdicts.items() if isinstance(verdict, ResolvedModel)]


def source_as_recorded(model: Raw) -> ModelSource:
    """The model that a spec names, also if an older release admitted a URI that this release refuses."""
    try:
        return ModelSource.model_validate(model)
    except ValidationError:
        return ModelSource.model_construct(uri=model.get("uri"))


def _verdict(
    name: str, source: ModelSource, model: ResolvedModel, references: References, is_recorded: bool
) -> ResolvedModel | Waiting | Blocked:
    """The model, if the EvalJob has passed it. A recorded pass replaces a verdict that is missing or about another model."""
    job = references.get(Reference("EvalJob", name))
    status: Raw = (job or {}).get("status") or {}
    if job is None or status.get("verdict") is None:
        return model if is_recorded else _no_verdict(name, job)
    scored = status.get("model") or {}
    if other := _other_model(name, job, scored, source, model):
        return model if is_recorded else other
    if status["verdict"] != Verdict.PASSED:
        return Blocked(f"EvalJob {name} has not passed {describe(source)}: {_failed_gates(status)}")
    return _pinned(model, scored)


def _no_verdict(name: str, job: Raw | None) -> Waiting:
    if job is None:
        text = f"EvalJob {name}, which does not exist in this namespace"
        return Waiting(Reason.WAITING_FOR_VERDICT, text)
    status = job.get("status") or {}
    phase = status.get("phase") or Phase.PENDING
    text = f"EvalJob {name} to report its verdict; it is {phase}"
    if phase == Phase.FAILED:
        cause = f"{text} ({status.get('reason')}): {remedy(job)}"
        return Waiting(Reason.WAITING_FOR_VERDICT, cause, is_stalled=True)
    return wait_for_resource(Reason.WAITING_FOR_VERDICT, text, status)


def _other_model(name: str, job: Raw, scored: Raw, source: ModelSource, model: ResolvedModel) -> Blocked | None:
    """Blocked if the EvalJob has scored another model: by digest if both are known, otherwise by the specs."""
    theirs, ours, spec = scored.get("digest"), model.digest, job["spec"]["model"]
    if theirs == ours if theirs and ours else _is_same_source(source_as_recorded(spec), source):
        return None
    what = f"{scored.get('uri')} (sha256 {_short(theirs)})"
    # An EvalJob of a service scores the model that is served then: to create it again would change nothing.
    advice = f" with spec.model: {source.model_dump_json(by_alias=True, exclude_defaults=True)}"
    return Blocked(
        f"EvalJob {name} has scored another model, {what}, than {describe(source)} is now (sha256 {_short(ours)}): "
        f"re-create the EvalJob{advice if spec.get('inferenceService') else ''}"
    )


def _is_same_source(named: ModelSource, source: ModelSource) -> bool:
    return (named.name, named.uri, named.fine_tune_job) == (source.name, source.uri, source.fine_tune_job)


def _failed_gates(status: Raw) -> str:
    gates: Sequence[Raw] = status.get("gates") or []
    failed = [f"{gate.get('benchmark')}: {gate.get('message')}" for gate in gates if not gate.get("passed")]
    return "; ".join(failed) or "its verdict is Failed"


def _pinned(model: ResolvedModel, scored: Raw) -> ResolvedModel:
    """The copy of a hub model that was scored; other models as they are."""
    is_imported = model.digest is None and scored.get("digest") and scored.get("uri") not in (None, model.uri)
    return model.model_copy(update={"uri": scored["uri"], "digest": scored["digest"]}) if is_imported else model


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "unknown"
