"""The status fields of a FineTuneJob: from the reports of its containers, and from pushed progress."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.finetunejob_status import Progress as ReportedProgress
from tunesmith_api.hashing import spec_hash
from tunesmith_api.run import Outcome, RunReport, Verb
from tunesmith_api.training import Until
from tunesmith_operator.plan.finetunejob.roles import KIND
from tunesmith_operator.plan.jobs.attempts import Attempts
from tunesmith_operator.plan.jobs.kind import JobContext
from tunesmith_operator.plan.jobs.status_progress import is_newer, progress_fields
from tunesmith_operator.plan.names import name_of
from tunesmith_operator.plan.phases import Phase, Reason
from tunesmith_operator.plan.spec.references import fetched_model_status
from tunesmith_operator.plan.status.conditions import WantedCondition
from tunesmith_operator.plan.status.outlook import Outlook
from tunesmith_operator.plan.times import format_time
from tunesmith_operator.plan.types import Progress, Raw

VERBS = (Verb.PREPARE, Verb.FETCH, Verb.TRAIN, Verb.EXPORT)
"""The containers in the order in which they report."""
REPORTED = (
    "runUri", "reportUri", "artifacts", "rows", "estimate", "metrics", "resumedFromStep", "lastCheckpoint", "trackingUrl",
)  # fmt: skip
PREPARED = ("estimate", "rows")
PUSHED = ("rows", "lastCheckpoint", "resumedFromStep", "trackingUrl")
PROGRESS = tuple(str(field.alias) for field in ReportedProgress.model_fields.values())


def report(context: JobContext[FineTuneJobSpec]) -> Raw:
    """What is known so far: the reports of finished containers, then pushed progress."""
    attempts = context.current[0]
    fields: Raw = {
        "specHash": spec_hash(KIND, context.spec.to_dict()),
        **_prepared(context.others),
        **_results(attempts),
    }
    latest = context.observed.progress.get(name_of(attempts.job)) if attempts.job else None
    if latest and is_newer(latest, context.status.get("progress")):
        return {**_pushed(latest), **fields}
    return fields


def complete(context: JobContext[FineTuneJobSpec]) -> Outlook:
    """The outlook of a FineTuneJob that has succeeded."""
    attempts = context.current[0]
    fields = _results(attempts)
    adopted = attempts.result.outcome is Outcome.ADOPTED
    reason = Reason.ADOPTED_EXISTING if adopted else Reason.COMPLETED
    artifacts = ", ".join(f"{made['name']} {made['uri']}" for made in fields.get("artifacts") or []) or "nothing"
    message = f"found finished in the store: {artifacts}" if adopted else f"made {artifacts}"
    if not context.spec.until.trains:
        message = _assessed(fields)
    return Outlook(
        Phase.SUCCEEDED,
        reason,
        message,
        ready=True,
        fields={**fields, "progress": _final_progress(context, fields)} if context.spec.until.trains else fields,
        conditions=(WantedCondition("Succeeded", True, reason, message),),
    )


def _assessed(fields: Raw) -> str:
    """The message of a job that ends before training: its estimate and its rows."""
    summary, rows = (fields.get("estimate") or {}).get("summary"), fields.get("rows")
    dropped = sum(each["count"] for each in (rows or {}).get("dropped") or ())
    counts = f"{rows.get('kept', 0)} rows kept, {dropped} dropped" if rows else ""
    return "; ".join(text for text in (summary, counts) if text) or "nothing is known of the model's sizes"


def _prepared(others: Sequence[Attempts]) -> Raw:
    """What a finished preparation has found out about the work that follows it."""
    reports = (each.reports[Verb.PREPARE] for each in others if each.is_preparation and Verb.PREPARE in each.reports)
    return {name: value for each in reports for name, value in _reported(each).items() if name in PREPARED}


def _results(attempts: Attempts) -> Raw:
    """The fields from reports. Later containers override earlier ones."""
    fields: Raw = {}
    if attempts.run and attempts.model_is_known:
        fields["model"] = fetched_model_status(attempts.run.subject, attempts.fetch_report)
    for verb in VERBS:
        if verb in attempts.reports:
            fields |= _reported(attempts.reports[verb])
    return fields


def _reported(container: RunReport) -> Raw:
    data = container.to_dict()
    return {name: data[name] for name in REPORTED if name in data}


def _pushed(latest: Progress) -> Raw:
    data = latest.report.to_dict()
    fields: Raw = {name: data[name] for name in PUSHED if name in data}
    return {"progress": progress_fields(latest, latest.report.stage, *PROGRESS), **fields}


def _final_progress(context: JobContext[FineTuneJobSpec], fields: Raw) -> Raw:
    """The last progress, completed: a report may have arrived after the last push."""
    last: Raw = context.status.get("progress") or {}
    steps = (fields.get("metrics") or {}).get("steps") or last.get("totalSteps") or 0
    return {
        **{name: value for name, value in last.items() if name != "etaSeconds"},
        "stage": "train" if context.spec.until is Until.TRAIN else "export",
        "step": steps,
        "totalSteps": steps,
        "percent": 100,
        "updated": format_time(context.now),
    }
