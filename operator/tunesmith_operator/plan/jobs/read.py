"""Facts of a Job: whether a Job has ended or is suspended, and whether one of its pods may still run."""

from __future__ import annotations

from datetime import datetime, timedelta

from tunesmith_operator.plan.names import ATTEMPT_ANNOTATION, annotation, metadata, name_of, uid_of
from tunesmith_operator.plan.pods.read import condition, is_finished, is_true
from tunesmith_operator.plan.times import parse_time
from tunesmith_operator.plan.types import Raw

TERMINAL_CONDITIONS = ("Failed", "FailureTarget", "Complete", "SuccessCriteriaMet")
"""Conditions of a Job that has ended or is about to end."""
LOST_POD_GRACE = timedelta(seconds=30)
"""A pod that exists this long after its deletion time is on a node that does not respond."""


def is_over(job: Raw) -> bool:
    """Whether a Job has ended or is about to end, with or without success."""
    return any(is_true(job, type_) for type_ in TERMINAL_CONDITIONS)


def is_suspended(job: Raw) -> bool:
    """Whether spec.suspend keeps a Job from having pods."""
    return bool((job.get("spec") or {}).get("suspend"))


def admitted_at(job: Raw) -> datetime | None:
    """When a Job was last allowed to start; None while it is suspended or its controller has not observed it."""
    return None if is_suspended(job) else parse_time((job.get("status") or {}).get("startTime"))


def suspended_at(job: Raw) -> datetime | None:
    """When the Job controller last changed the condition Suspended."""
    return parse_time(condition(job, "Suspended").get("lastTransitionTime"))


def ended_at(job: Raw) -> datetime | None:
    """When a Job ended, by its conditions; None while it runs."""
    conditions = (condition(job, type_) for type_ in TERMINAL_CONDITIONS)
    return parse_time(next((found for found in conditions if found), {}).get("lastTransitionTime"))


def created_at(thing: Raw) -> datetime | None:
    """When an object was created."""
    return parse_time(metadata(thing).get("creationTimestamp"))


def attempt_number(job: Raw) -> int:
    """The attempt that a Job runs."""
    text = annotation(job, ATTEMPT_ANNOTATION) or name_of(job).rpartition("-")[2]
    return int(text) if text.isdecimal() else 0


def main_container(job: Raw) -> str:
    """Name of the container whose report is the result."""
    return str(((job["spec"]["template"].get("spec") or {}).get("containers") or [{}])[0].get("name"))


def controls(job: Raw, pod: Raw) -> bool:
    """Whether a Job is the controller of a pod."""
    return controller(pod).get("uid") == uid_of(job)


def controller(pod: Raw) -> Raw:
    """The controller reference of a pod; empty without one."""
    owners = metadata(pod).get("ownerReferences") or []
    return next((owner for owner in owners if owner.get("controller")), {})


def may_run(pod: Raw, now: datetime) -> bool:
    """Whether containers of a pod may still run: it has not finished and its deletion is not overdue."""
    if is_finished(pod):
        return False
    deletion = parse_time(metadata(pod).get("deletionTimestamp"))
    return deletion is None or now < deletion + LOST_POD_GRACE
