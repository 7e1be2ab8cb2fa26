"""The status fields of an EvalJob: models, progress, and at the end results, gates and the verdict."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith_api.evaljob import EvalJobSpec, Result, Verdict
from tunesmith_api.hashing import spec_hash
from tunesmith_operator.plan.evaljob.gates import compared, judged, short, verdict
from tunesmith_operator.plan.evaljob.roles import BASELINE, KIND, MODEL
from tunesmith_operator.plan.jobs.attempts import Attempts
from tunesmith_operator.plan.jobs.kind import JobContext
from tunesmith_operator.plan.jobs.state import State
from tunesmith_operator.plan.jobs.status_progress import is_newer, progress_fields
from tunesmith_operator.plan.names import name_of
from tunesmith_operator.plan.phases import Phase, Reason
from tunesmith_operator.plan.spec.references import fetched_model_status
from tunesmith_operator.plan.status.conditions import WantedCondition
from tunesmith_operator.plan.status.outlook import Outlook
from tunesmith_operator.plan.types import Raw

SCORES_SHOWN = 8
"""Scores in the message of an EvalJob without gates."""


def report(context: JobContext[EvalJobSpec]) -> Raw:
    """What is known so far: the models as they were read, the engine, and pushed progress."""
    fields: Raw = {"specHash": spec_hash(KIND, context.spec.to_dict())}
    for attempts in context.current:
        if attempts.run and attempts.model_is_known:
            fields[str(attempts.role.status_name)] = fetched_model_status(attempts.run.subject, attempts.fetch_report)
            fields["engine"] = attempts.run.spec.get("engine")
    return {**fields, **_pushed(context)}


def complete(context: JobContext[EvalJobSpec]) -> Outlook:
    """The outlook of an EvalJob that has scored its models."""
    scores = {attempts.role: attempts.result.results or [] for attempts in context.current}
    results = compared(scores[MODEL], scores.get(BASELINE, []))
    gates = judged(context.spec.gates or [], results)
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
            "artifacts": _artifacts(context.current) or None,
            "progress": None,
        },
        conditions=(
            WantedCondition("Succeeded", True, reason, message),
            WantedCondition("Passed", passed, reason, message),
        ),
    )


def _pushed(context: JobContext[EvalJobSpec]) -> Raw:
    """The latest progress of the roles that still run."""
    pushed = [
        (attempts.role.status_name, latest)
        for attempts in context.current
        if attempts.job
        and attempts.state is not State.SUCCEEDED
        and (latest := context.observed.progress.get(name_of(attempts.job)))
    ]
    if not pushed:
        return {}
    role, latest = max(pushed, key=lambda entry: entry[1].time)
    if not is_newer(latest, context.status.get("progress")):
        return {}
    return {"progress": progress_fields(latest, f"{role}: {latest.report.stage}")}


def _scores(results: Sequence[Result]) -> str:
    shown = (f"{result.benchmark} {result.metric} {short(result.value)[0]}" for result in results[:SCORES_SHOWN])
    return "; ".join(shown) or "no scores"


def _artifacts(roles: Sequence[Attempts]) -> list[Raw]:
    """The artifacts of both roles; a prefix marks those of the baseline."""
    return [
        {**artifact.to_dict(), "name": artifact.name if attempts.role == MODEL else f"baseline-{artifact.name}"}
        for attempts in roles
        for artifact in attempts.result.artifacts or []
    ]
