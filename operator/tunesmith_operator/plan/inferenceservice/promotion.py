"""Whether a model has passed what spec.promotion asks for: a verdict on that very model, not on one of the same name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from tunesmith_api.common import ModelSource
from tunesmith_api.evaljob import Verdict
from tunesmith_api.inferenceservice import Promotion
from tunesmith_api.run import ResolvedModel
from tunesmith_operator.plan.phases import Phase, Reason
from tunesmith_operator.plan.spec.references import References, Waiting, describe, held_up, next_step
from tunesmith_operator.plan.types import Raw, Reference


@dataclass(frozen=True)
class Blocked:
    """It must not be served: which EvalJob says so, and why."""

    text: str


def promoted(
    promotion: Promotion | None,
    source: ModelSource,
    model: ResolvedModel,
    references: References,
    before: frozenset[str] = frozenset(),
) -> ResolvedModel | Waiting | Blocked:
    """The model to serve if every EvalJob has passed it, and else the first that stands in the way.

    A model named by a URI has no digest of its own here: then it is served from where the EvalJob read it, by the
    digest that it scored. A folder of object storage without a manifest never gets one: there the EvalJob's verdict
    holds for the name, whatever the folder contains by now. `before`: EvalJobs that have passed this very model once,
    which holds until one fails it.
    """
    pinned = model
    for reference in promotion.eval_jobs if promotion else ():
        answer = _verdict(reference.name, source, pinned, references, reference.name in before)
        if not isinstance(answer, ResolvedModel):
            return answer
        pinned = answer
    return pinned


def passed_before(status: Raw, model: ResolvedModel) -> frozenset[str]:
    """The EvalJobs that have passed this very model, as status remembers."""
    record: Sequence[Raw] = status.get("passed") or []
    same = (one for one in record if (one.get("uri"), one.get("digest")) == (model.uri, model.digest))
    return frozenset(str(one.get("evalJob")) for one in same)


def passes(
    promotion: Promotion | None,
    source: ModelSource,
    model: ResolvedModel,
    references: References,
    before: frozenset[str],
) -> list[Raw]:
    """What status is to remember: which EvalJobs have passed this very model, now or before."""
    names = [reference.name for reference in promotion.eval_jobs] if promotion else []
    verdicts = {name: _verdict(name, source, model, references, name in before) for name in names}
    what = {"uri": model.uri, **({"digest": model.digest} if model.digest else {})}
    return [{"evalJob": name, **what} for name, answer in verdicts.items() if isinstance(answer, ResolvedModel)]


def source_as_recorded(model: Raw) -> ModelSource:
    """The model that a spec names, also where an older release admitted a URI that this release refuses."""
    try:
        return ModelSource.model_validate(model)
    except ValidationError:
        return ModelSource.model_construct(uri=model.get("uri"))


def _verdict(
    name: str, source: ModelSource, model: ResolvedModel, references: References, before: bool
) -> ResolvedModel | Waiting | Blocked:
    job = references.get(Reference("EvalJob", name))
    if job is None:
        return (
            model
            if before
            else Waiting(Reason.WAITING_FOR_VERDICT, f"EvalJob {name}: there is none of that name in this namespace")
        )
    status = job.get("status") or {}
    if status.get("verdict") is None:
        return model if before else _no_verdict(name, job)
    scored = status.get("model") or {}
    if wrong := _another_model(name, job, scored, source, model):
        return model if before else wrong
    if status["verdict"] != Verdict.PASSED:
        return Blocked(f"EvalJob {name} has not passed {describe(source)}: {_failed_gates(status)}")
    return _pinned(model, scored)


def _no_verdict(name: str, job: Raw) -> Waiting:
    status = job.get("status") or {}
    phase = status.get("phase") or Phase.PENDING
    text = f"EvalJob {name} to give its verdict; it is {phase}"
    if phase == Phase.FAILED:
        why = f"{text} ({status.get('reason')}): {next_step(job)}"
        return Waiting(Reason.WAITING_FOR_VERDICT, why, in_vain=True)
    return held_up(Reason.WAITING_FOR_VERDICT, text, status)


def _another_model(name: str, job: Raw, scored: Raw, source: ModelSource, model: ResolvedModel) -> Blocked | None:
    """Digests are compared where both are known, else what the two specs name."""
    theirs, ours = scored.get("digest"), model.digest
    if theirs and ours:
        same = theirs == ours
    else:
        named = source_as_recorded(job["spec"]["model"])
        same = (named.uri, named.fine_tune_job) == (source.uri, source.fine_tune_job)
    if same:
        return None
    what = f"{scored.get('uri')} (sha256 {_short(theirs)})"
    # An EvalJob of a service scores what is served by then, which another try would not change.
    service = job["spec"]["model"].get("inferenceService")
    advice = f" with spec.model: {source.model_dump_json(by_alias=True, exclude_defaults=True)}" if service else ""
    return Blocked(
        f"EvalJob {name} has scored another model, {what}, than {describe(source)} is now (sha256 {_short(ours)}): "
        f"re-create the EvalJob{advice}"
    )


def _failed_gates(status: Raw) -> str:
    gates: Sequence[Raw] = status.get("gates") or []
    failed = [f"{gate.get('benchmark')}: {gate.get('message')}" for gate in gates if not gate.get("passed")]
    return "; ".join(failed) or "its verdict is Failed"


def _pinned(model: ResolvedModel, scored: Raw) -> ResolvedModel:
    imported = model.digest is None and scored.get("digest") and scored.get("uri") not in (None, model.uri)
    return model.model_copy(update={"uri": scored["uri"], "digest": scored["digest"]}) if imported else model


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "unknown"
