"""Reading pods: their containers in order, how each ended, and the report that it left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from tunesmith_api.run import LOG_TAIL_CHARACTERS, RunReport
from tunesmith_operator.plan.names import name_of
from tunesmith_operator.plan.types import Raw


@dataclass(frozen=True)
class Container:
    """A container of a pod: its spec, and its state as the kubelet reports it."""

    name: str
    sidecar: bool
    spec: Raw
    waiting: Raw
    running: Raw
    terminated: Raw
    """State of its end; of the previous run if it has been restarted."""
    is_over: bool
    """Whether it has ended and is not restarted."""
    restarts: int

    @property
    def exit_code(self) -> int | None:
        """Exit code of its end."""
        code = self.terminated.get("exitCode")
        return code if isinstance(code, int) else None

    @property
    def report(self) -> RunReport | None:
        """The report in its termination message."""
        return parse_report(str(self.terminated.get("message") or ""))

    @property
    def log_tail(self) -> str | None:
        """Last lines of its log, if the kubelet put them into the termination message for lack of a report."""
        message = str(self.terminated.get("message") or "").strip()
        return None if not message or self.report else message[-LOG_TAIL_CHARACTERS:]


def containers(pod: Raw) -> tuple[Container, ...]:
    """Return the containers of a pod in the order in which they start."""
    return tuple(_containers(pod))


def _containers(pod: Raw) -> Iterator[Container]:
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    for specs, statuses in (("initContainers", "initContainerStatuses"), ("containers", "containerStatuses")):
        by_name = {entry.get("name"): entry for entry in status.get(statuses) or []}
        for container in spec.get(specs) or []:
            observed = by_name.get(container.get("name")) or {}
            state, last = observed.get("state") or {}, observed.get("lastState") or {}
            yield Container(
                name=str(container.get("name", "")),
                sidecar=specs == "initContainers" and container.get("restartPolicy") == "Always",
                spec=container,
                waiting=state.get("waiting") or {},
                running=state.get("running") or {},
                terminated=state.get("terminated") or last.get("terminated") or {},
                is_over=bool(state.get("terminated")),
                restarts=int(observed.get("restartCount") or 0),
            )


def parse_report(message: str) -> RunReport | None:
    """Return the report in a termination message: all of it, or its last line if the kubelet fell back to the log."""
    for text in (message.strip(), *message.strip().splitlines()[-1:]):
        if not text.startswith("{"):
            continue
        try:
            return RunReport.model_validate(_without_nan(json.loads(text, parse_constant=lambda name: None)))
        except (ValueError, ValidationError, RecursionError):
            continue
    return None


def _without_nan(report: Raw) -> Raw:
    """Return a report without results that have no number: neither JSON nor the API server knows NaN."""
    results = report.get("results")
    if not isinstance(results, list):
        return report
    kept = [result for result in results if not isinstance(result, dict) or result.get("value") is not None]
    return {**report, "results": kept}


def reports(pod: Raw) -> dict[str, RunReport]:
    """Return the reports of the ended containers by name."""
    ended = (container for container in containers(pod) if container.is_over)
    return {container.name: report for container in ended if (report := container.report)}


def condition(thing: Raw, type_: str) -> Raw:
    """Return a condition of a pod, Job or Deployment; empty if it has none of that type."""
    conditions = (thing.get("status") or {}).get("conditions") or []
    return next((entry for entry in conditions if entry.get("type") == type_), {})


def is_true(thing: Raw, type_: str) -> bool:
    """Whether a condition has status True."""
    return bool(condition(thing, type_).get("status") == "True")


def phase(pod: Raw) -> str:
    """Return the phase of a pod: Pending, Running, Succeeded, Failed or Unknown."""
    return str((pod.get("status") or {}).get("phase") or "Pending")


def is_finished(pod: Raw) -> bool:
    """Whether a pod has ended: none of its containers will run again."""
    return phase(pod) in ("Succeeded", "Failed")


def describe(pod: Raw, container: Container) -> str:
    """Return the name of a container for messages."""
    return f"container {container.name} of pod {name_of(pod)}"
