"""Building `status.lastFailure` of a resource, a pod or a container."""

from __future__ import annotations

from typing import Any

from tunesmith_api.failures import EVAL, FAILURES, TUNE, FailureClass, Retry
from tunesmith_api.status import FAILURE_CHARACTERS, LastFailure
from tunesmith_operator.plan.failures.hints import FIXED_FIELD, container_hint, kind_of, with_policy, with_recreation
from tunesmith_operator.plan.names import name_of
from tunesmith_operator.plan.pods.read import Container
from tunesmith_operator.plan.types import Raw

PENDING_CLASSES = frozenset(class_ for class_, row in FAILURES.items() if row.retry is Retry.WAITS)
"""Failures that keep a pod from starting and may pass: they end no attempt, and status drops them when they are over."""


def failure(class_: FailureClass, message: str, hint: str | None = None, kind: str = "", **more: Any) -> LastFailure:
    """Return a failure of a resource of `kind`, with `hint` or that of the class, and what it takes to follow the hint."""
    full = with_policy(hint or FAILURES[class_].hint_for(kind))
    if kind in (TUNE, EVAL) and (class_ is FailureClass.BAD_SPEC or FIXED_FIELD.search(full)):
        full = with_recreation(full)
    return LastFailure(class_=class_, message=message[:FAILURE_CHARACTERS], hint=full[:FAILURE_CHARACTERS], **more)


def pod_failure(pod: Raw, class_: FailureClass, message: str, hint: str | None = None, **more: Any) -> LastFailure:
    """Return a failure of a pod."""
    return failure(class_, message, hint, kind_of(pod), pod=name_of(pod), **more)


def container_failure(
    pod: Raw,
    container: Container,
    class_: FailureClass,
    message: str,
    hint: str | None = None,
    log_tail: str | None = None,
) -> LastFailure:
    """Return a failure of a container, with its exit code, the end of its log and the time of its end."""
    return pod_failure(
        pod,
        class_,
        message,
        hint or container_hint(pod, container, class_),
        container=container.name,
        exit_code=container.exit_code,
        log_tail=(log_tail or "")[-FAILURE_CHARACTERS:] or None,
        time=container.terminated.get("finishedAt"),
    )
