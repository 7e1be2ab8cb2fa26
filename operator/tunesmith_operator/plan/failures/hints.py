"""Hints: what to do about a failure, with the fields, lists and commands of the resource, pod or container it happened to."""

from __future__ import annotations

import re

from tunesmith_api.failures import FAILURES, FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_operator.plan.failures import namespace_limits
from tunesmith_operator.plan.names import KIND_LABEL, label, name_of, namespace_of
from tunesmith_operator.plan.pods.read import Container, containers
from tunesmith_operator.plan.spec.policy import KEYS, NAMES
from tunesmith_operator.plan.types import Raw

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


def with_policy(hint: str) -> str:
    """Return `hint` with the lists that an administrator may have to extend before it can be followed."""
    lists = {
        f"podPolicy.{policy}": None
        for field, policy in POLICIES.items()
        if f"spec.{field}" in hint and f"podPolicy.{policy}" not in hint
    }
    return f"{hint} ({' and '.join(lists)} in the chart's values must allow it)" if lists else hint


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


def container_hint(pod: Raw, container: Container, class_: FailureClass) -> str:
    """Return the hint of a class for a container: how to give it memory, or the command that shows its whole log."""
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
