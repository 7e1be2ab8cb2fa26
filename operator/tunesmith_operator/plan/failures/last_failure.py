"""Building `status.lastFailure`: class, message and hint of a failure of a resource, a pod or a container."""

from __future__ import annotations

import re
from typing import Any

from tunesmith_api.failures import EVAL, FAILURES, TUNE, FailureClass, Retry
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.status import FAILURE_CHARACTERS, LastFailure
from tunesmith_operator.plan.failures import namespace_limits
from tunesmith_operator.plan.names import KIND_LABEL, label, name_of, namespace_of
from tunesmith_operator.plan.pods.read import Container, containers
from tunesmith_operator.plan.spec.policy import KEYS, NAMES
from tunesmith_operator.plan.types import Raw

PENDING_CLASSES = frozenset(class_ for class_, row in FAILURES.items() if row.retry is Retry.WAITS)
"""Failures that keep a pod from starting and may pass: they end no attempt, and status drops them when they are over."""
VAGUE = frozenset({FailureClass.PROCESS_ERROR, FailureClass.ENGINE_FAILED})
"""Classes that name the place of a failure, not its cause: the log may contain the cause."""
NEEDS_LOG = VAGUE | {FailureClass.EVALUATION_FAILED}
"""Classes whose cause only the log contains."""

POLICIES = {**NAMES, **KEYS, "pod.tolerations": "tolerations"}
"""Field below spec -> the list of the chart's podPolicy that must contain its value."""
MUTABLE = "|".join(sorted(FineTuneJobSpec.mutable))
FIXED_FIELD = re.compile(rf"\bspec\.(?!(?:{MUTABLE})\b)\w")
"""A field that cannot be changed on a job. The same fields are mutable on both kinds of job."""
RECREATE = "Then delete the resource and apply it again: finished work in the store is reused"

MEMORY_CLASSES = frozenset({FailureClass.OOM_KILLED, FailureClass.DEVICE_OUT_OF_MEMORY})
MEMORY_HINTS: dict[str, str] = {
    "prepare": "raise spec.resources.memory, or set it",
    "fetch": "raise spec.resources.memory, or set it",
    "export": "raise spec.resources.memory, or set it: a merge holds the model a second time",
    "evaluate": "raise the default memory limit in the LimitRange (the container sets none itself), or lower "
    "spec.benchmarks[].limit",
}
"""Hints for lack of memory by container, for those that do not compute."""


def failure(class_: FailureClass, message: str, hint: str | None = None, kind: str = "", **more: Any) -> LastFailure:
    """Return a failure of a resource of `kind`, with `hint` or that of the class, and what it takes to follow the hint."""
    full = _with_policy(hint or FAILURES[class_].hint_for(kind))
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
        hint or _container_hint(pod, container, class_),
        container=container.name,
        exit_code=container.exit_code,
        log_tail=(log_tail or "")[-FAILURE_CHARACTERS:] or None,
        time=container.terminated.get("finishedAt"),
    )


def with_recreation(hint: str) -> str:
    """Return `hint` for a job whose spec is fixed or that has ended: it takes effect only when the job is created again."""
    return hint if RECREATE in hint else f"{hint.rstrip('.')}. {RECREATE}"


def with_hint(message: str, hint: str) -> str:
    """Return message and hint as one text, for the fields of status and Events that have no separate hint."""
    return f"{message.rstrip('.')}. Hint: {hint}" if hint else message


def kind_of(child: Raw) -> str:
    """Return the kind of the resource that a child belongs to."""
    return label(child, KIND_LABEL) or ""


def hint_values(pod: Raw) -> dict[str, str]:
    """Return the values of the placeholders in hints that a pod supplies (see cluster_messages)."""
    spec = pod.get("spec") or {}
    secrets = ", ".join(str(secret.get("name")) for secret in spec.get("imagePullSecrets") or [])
    return {
        "namespace": namespace_of(pod),
        "node": str(spec.get("nodeName") or "of the pod"),
        "pull_secrets": secrets or "none now",
        "fewer_devices": _fewer_devices(pod),
    }


def _with_policy(hint: str) -> str:
    """Return `hint` with the lists that an administrator may have to extend before it can be followed."""
    lists = {
        f"podPolicy.{policy}": None
        for field, policy in POLICIES.items()
        if f"spec.{field}" in hint and f"podPolicy.{policy}" not in hint
    }
    return f"{hint} ({' and '.join(lists)} in the chart's values must allow it)" if lists else hint


def _container_hint(pod: Raw, container: Container, class_: FailureClass) -> str:
    if class_ is FailureClass.DEVICE_OUT_OF_MEMORY and not _requested_devices(container):
        class_ = FailureClass.OOM_KILLED  # it computes on the CPU, in the pod's memory
    hint = FAILURES[class_].hint_for(kind_of(pod))
    if class_ in MEMORY_CLASSES:
        return MEMORY_HINTS.get(container.name, hint)
    if class_ not in NEEDS_LOG:
        return hint
    previous = " --previous" if container.running or container.waiting else ""
    command = f"kubectl --namespace {namespace_of(pod)} logs {name_of(pod)} --container {container.name}{previous}"
    return f"{hint}. The whole log: {command}"


def _fewer_devices(pod: Raw) -> str:
    """Return the advice to request fewer devices; empty if the pod requests one or none."""
    fewer = namespace_limits.divisor(max(map(_requested_devices, containers(pod)), default=0))
    return f", or lower {namespace_limits.COUNT} to {fewer}" if fewer else ""


def _requested_devices(container: Container) -> int:
    return namespace_limits.devices((container.spec.get("resources") or {}).get("limits") or {})
