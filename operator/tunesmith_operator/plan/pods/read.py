"""Reading pods: containers in order, how each ended, and the report that it left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from tunesmith_api.run import RunReport
from tunesmith_operator.plan.names import name_of
from tunesmith_operator.plan.types import Raw

LOG_TAIL_CHARACTERS = 1500


@dataclass(frozen=True)
class Container:
    """One container of a pod, as the kubelet tells."""

    name: str
    sidecar: bool
    spec: Raw
    waiting: Raw
    running: Raw
    terminated: Raw
    """How it ended: this run of it, or the one before where it runs anew."""
    is_over: bool
    """Whether it ended and will not run again by itself."""
    restarts: int

    @property
    def exit_code(self) -> int | None:
        """The exit code, where it ended."""
        code = self.terminated.get("exitCode")
        return code if isinstance(code, int) else None

    @property
    def report(self) -> RunReport | None:
        """The report that it left."""
        return parse_report(str(self.terminated.get("message") or ""))

    @property
    def log_tail(self) -> str | None:
        """The last lines of its log, where the termination message is that and no report."""
        message = str(self.terminated.get("message") or "").strip()
        return None if not message or self.report else message[-LOG_TAIL_CHARACTERS:]


def containers(pod: Raw) -> tuple[Container, ...]:
    """The containers of a pod, in the order in which they start."""
    return tuple(_containers(pod))


def _containers(pod: Raw) -> Iterator[Container]:
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    for specs, statuses in (("initContainers", "initContainerStatuses"), ("containers", "containerStatuses")):
        by_name = {one.get("name"): one for one in status.get(statuses) or []}
        for one in spec.get(specs) or []:
            seen = by_name.get(one.get("name")) or {}
            state, last = seen.get("state") or {}, seen.get("lastState") or {}
            yield Container(
                name=str(one.get("name", "")),
                sidecar=specs == "initContainers" and one.get("restartPolicy") == "Always",
                spec=one,
                waiting=state.get("waiting") or {},
                running=state.get("running") or {},
                terminated=state.get("terminated") or last.get("terminated") or {},
                is_over=bool(state.get("terminated")),
                restarts=int(seen.get("restartCount") or 0),
            )


def parse_report(message: str) -> RunReport | None:
    """The report in a termination message: the whole of it, or its last line where the kubelet fell back to the log."""
    for text in (message.strip(), *message.strip().splitlines()[-1:]):
        if not text.startswith("{"):
            continue
        try:
            return RunReport.model_validate(_without_gaps(json.loads(text, parse_constant=lambda name: None)))
        except (ValueError, ValidationError, RecursionError):
            continue
    return None


def _without_gaps(report: Raw) -> Raw:
    """A report without the scores that are no numbers: neither JSON nor the API server knows NaN."""
    results = report.get("results")
    if not isinstance(results, list):
        return report
    return {**report, "results": [one for one in results if not isinstance(one, dict) or one.get("value") is not None]}


def reports(pod: Raw) -> dict[str, RunReport]:
    """By name of the container: the reports of those that are over."""
    return {one.name: report for one in containers(pod) if one.is_over and (report := one.report)}


def condition(thing: Raw, type_: str) -> Raw:
    """A condition of a pod, Job or Deployment; empty where it has none of that type."""
    conditions = (thing.get("status") or {}).get("conditions") or []
    return next((one for one in conditions if one.get("type") == type_), {})


def is_true(thing: Raw, type_: str) -> bool:
    """Whether a condition holds."""
    return bool(condition(thing, type_).get("status") == "True")


def phase(pod: Raw) -> str:
    """Pending, Running, Succeeded, Failed or Unknown."""
    return str((pod.get("status") or {}).get("phase") or "Pending")


def is_finished(pod: Raw) -> bool:
    """Whether none of its containers will run again."""
    return phase(pod) in ("Succeeded", "Failed")


def describe(pod: Raw, container: Container) -> str:
    """How messages name a container."""
    return f"container {container.name} of pod {name_of(pod)}"
