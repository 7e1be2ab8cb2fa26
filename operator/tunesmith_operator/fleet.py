"""Metrics of the resources, by namespace: a few figures per resource, updated by watch events and summed at each scrape.

Sums over the existing resources are gauges: they are correct once the first lists are read, and fall when a resource is
deleted. Transitions are counted as their events come: these counters start at zero with the process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from operator import add
from sys import intern
from typing import NamedTuple

from prometheus_client.core import GaugeMetricFamily

from tunesmith_api.failures import FailureClass
from tunesmith_operator import metrics
from tunesmith_operator.plan.failures.last_failure import PENDING_CLASSES
from tunesmith_operator.plan.phases import FINAL, Phase, Reason
from tunesmith_operator.plan.times import parse_time
from tunesmith_operator.plan.types import Raw
from tunesmith_operator.resources import ResourceKey

JOBS = frozenset({"FineTuneJob", "EvalJob"})
NEW = "New"
"""The phase of a resource that has no status yet."""
NEVER_ANSWERED = frozenset({Phase.WAITING, Phase.BLOCKED})
"""Phases in which a service without a version is not unavailable: its first model does not exist or has not passed yet."""
ALARMING = frozenset(
    {class_ for class_ in FailureClass if class_.startswith(("Storage", "Hub"))}
    | {FailureClass.OOM_KILLED, FailureClass.DEVICE_FAILED, FailureClass.PREEMPTED}
    | {FailureClass.EVICTED, FailureClass.NODE_LOST, FailureClass.NODE_REFUSED}
)
"""Failures that alerts count. Their counters start at zero: otherwise the first failures would not be an increase."""
MOST_JOBS = 500
"""Number of jobs with series of their own, the earliest first; the others are only counted."""
PROMOTION = {"True": "Blocked", "False": "Promoted", "Unknown": "Waiting"}
"""Status of the condition PromotionBlocked -> value of the label promotion."""


class Progress(NamedTuple):
    """Progress of a running job; None for figures that it has not reported."""

    ratio: float
    step: float | None
    loss: float | None
    eval_loss: float | None
    tokens_per_second: float | None
    remaining_seconds: float | None
    reported: float | None
    """Unix time of the latest report, or of the attempt's start before the first."""
    attempt: float | None


class Figures(NamedTuple):
    """The figures of one resource: half a kilobyte with its key."""

    phase: str
    stalled: bool
    unavailable: bool
    """Whether a service should answer and does not."""
    failure: str | None
    """Class of the last failure."""
    failure_id: int
    """Distinguishes one failure from the next."""
    not_starting_since: float | None
    """Unix time since which its pods have not started."""
    accelerator: str | None
    """The accelerator of a job; None on CPUs."""
    accelerator_seconds: float
    queued_seconds: float
    trained_tokens: float
    verdict: str | None
    promotion: str | None
    progress: Progress | None


def figures(resource: Raw) -> Figures:
    """The figures of a resource in its current state."""
    status, spec = resource.get("status") or {}, resource.get("spec") or {}
    conditions = {each["type"]: each["status"] for each in status.get("conditions") or ()}
    phase, failure = status.get("phase") or NEW, status.get("lastFailure") or {}
    device = (spec.get("resources") or {}).get("accelerator") or "cpu"
    return Figures(
        phase=intern(phase),
        stalled=conditions.get("Stalled") == "True",
        unavailable=resource["kind"] == "InferenceService"
        and conditions.get("Ready") != "True"
        and phase != Phase.SUSPENDED
        and not (phase in NEVER_ANSWERED and not status.get("version"))
        and status.get("reason") != Reason.SCALED_TO_ZERO,
        failure=intern(failure["class"]) if failure else None,
        failure_id=hash((failure.get("class"), failure.get("pod"), failure.get("time"))) if failure else 0,
        not_starting_since=_seconds(failure.get("time"))
        if failure.get("class") in PENDING_CLASSES and phase not in FINAL and conditions.get("Ready") != "True"
        else None,
        accelerator=intern(device) if device != "cpu" and resource["kind"] in JOBS else None,
        accelerator_seconds=3600.0 * (status.get("acceleratorHours") or 0.0),
        queued_seconds=float(status.get("queuedSeconds") or 0.0),
        trained_tokens=float((status.get("metrics") or {}).get("tokens") or 0.0),
        verdict=status.get("verdict"),
        promotion=PROMOTION.get(conditions.get("PromotionBlocked", "")),
        progress=_progress(status) if phase == Phase.RUNNING else None,
    )


def _seconds(text: object) -> float | None:
    """Unix time."""
    moment = parse_time(text)
    return moment.timestamp() if moment else None


def _progress(status: Raw) -> Progress:
    progress: Raw = status.get("progress") or {}
    starts = [attempt.get("startTime") for attempt in status.get("attempts") or () if not attempt.get("endTime")]
    times = [time for text in (progress.get("updated"), *starts) if (time := _seconds(text))]
    return Progress(
        ratio=(progress.get("percent") or 0) / 100,
        step=progress.get("step"),
        loss=progress.get("loss"),
        eval_loss=progress.get("evalLoss"),
        tokens_per_second=progress.get("tokensPerSecond"),
        remaining_seconds=progress.get("etaSeconds"),
        reported=max(times, default=None),
        attempt=status.get("attempt"),
    )


Labels = tuple[str, ...]


@dataclass(frozen=True)
class Sum:
    """A gauge. `of`: a resource's label values and its addend, or None; `plus`: combines the addends."""

    name: str
    text: str
    labels: Labels
    of: Callable[[ResourceKey, Figures], tuple[Labels, float] | None]
    plus: Callable[[float, float], float] = add


SUMS: tuple[Sum, ...] = (
    Sum(
        "tunesmith_resources",
        "Resources by phase; New: without a status yet.",
        ("kind", "namespace", "phase"),
        lambda key, it: ((key.kind, key.namespace, it.phase), 1.0),
    ),
    Sum(
        "tunesmith_resources_stalled",
        "Resources that make no progress until somebody intervenes.",
        ("kind", "namespace"),
        lambda key, it: ((key.kind, key.namespace), float(it.stalled)),
    ),
    Sum(
        "tunesmith_resources_last_failure",
        "Resources by the class of their last failure.",
        ("kind", "namespace", "class"),
        lambda key, it: ((key.kind, key.namespace, it.failure), 1.0) if it.failure else None,
    ),
    Sum(
        "tunesmith_resources_not_starting_since_timestamp_seconds",
        "Start of the longest current wait of pods that do not start, by class of the failure.",
        ("kind", "namespace", "class"),
        lambda key, it: (
            ((key.kind, key.namespace, it.failure or ""), it.not_starting_since)
            if it.not_starting_since is not None
            else None
        ),
        min,
    ),
    Sum(
        "tunesmith_resources_accelerator_seconds",
        "Device seconds that the existing jobs have used.",
        ("kind", "namespace", "accelerator"),
        lambda key, it: ((key.kind, key.namespace, it.accelerator), it.accelerator_seconds) if it.accelerator else None,
    ),
    Sum(
        "tunesmith_resources_queued_seconds",
        "Seconds that the existing jobs have waited for a queue or a node.",
        ("kind", "namespace"),
        lambda key, it: ((key.kind, key.namespace), it.queued_seconds) if key.kind in JOBS else None,
    ),
    Sum(
        "tunesmith_resources_trained_tokens",
        "Tokens that the existing FineTuneJobs have trained on.",
        ("namespace",),
        lambda key, it: ((key.namespace,), it.trained_tokens) if key.kind == "FineTuneJob" else None,
    ),
    Sum(
        "tunesmith_resources_verdict",
        "EvalJobs by verdict (Passed, Failed).",
        ("namespace", "verdict"),
        lambda key, it: ((key.namespace, it.verdict), 1.0) if it.verdict else None,
    ),
    Sum(
        "tunesmith_resources_promotion",
        "InferenceServices with spec.promotion, by its state (Promoted, Blocked, Waiting).",
        ("namespace", "promotion"),
        lambda key, it: ((key.namespace, it.promotion), 1.0) if it.promotion else None,
    ),
    Sum(
        "tunesmith_resources_unavailable",
        "InferenceServices that should answer and do not.",
        ("namespace",),
        lambda key, it: ((key.namespace,), float(it.unavailable)) if key.kind == "InferenceService" else None,
    ),
)

JOB_LABELS = ("kind", "namespace", "name")
JOB_GAUGES = {
    "ratio": ("tunesmith_job_progress_ratio", "Completed share of a running job, from 0 to 1."),
    "step": ("tunesmith_job_step", "Optimizer steps done, or questions answered."),
    "loss": ("tunesmith_job_loss", "Latest training loss."),
    "eval_loss": ("tunesmith_job_eval_loss", "Latest validation loss."),
    "tokens_per_second": ("tunesmith_job_tokens_per_second", "Tokens trained on per second."),
    "remaining_seconds": ("tunesmith_job_remaining_seconds", "Estimated seconds left, at the pace so far."),
    "reported": (
        "tunesmith_job_last_report_timestamp_seconds",
        "Time of the latest report of its pod, or of the attempt's start before the first.",
    ),
    "attempt": ("tunesmith_job_attempt", "The current attempt, from 1."),
}
"""Field of Progress -> name and help of its gauge."""
LEFT_OUT = ("tunesmith_jobs_left_out", f"Running jobs without series of their own, beyond the first {MOST_JOBS}.")


class Fleet:
    """The figures of every known resource. A Prometheus collector."""

    def __init__(self) -> None:
        self._figures: dict[ResourceKey, Figures] = {}

    def update(self, key: ResourceKey, resource: Raw) -> None:
        """Store the figures of a resource, and count its transitions since the last event."""
        before, now = self._figures.get(key), figures(resource)
        self._figures[key] = now
        if before is None:
            _start_counters(key.kind, key.namespace)
        _count_transitions(key, before or now, now)

    def remove(self, key: ResourceKey) -> None:
        """Drop a deleted resource."""
        self._figures.pop(key, None)

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """The gauges without values: the registry checks that their names are free."""
        return Fleet().collect()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """All gauges; takes 20 ms for 5,000 resources."""
        for gauge in SUMS:
            sums: dict[Labels, float] = {}
            for key, it in self._figures.items():
                if added := gauge.of(key, it):
                    labels, value = added
                    sums[labels] = gauge.plus(sums[labels], value) if labels in sums else value
            family = GaugeMetricFamily(gauge.name, gauge.text, labels=gauge.labels)
            for labels, value in sums.items():
                family.add_metric(labels, value)
            yield family
        yield from self._jobs()

    def _jobs(self) -> Iterator[GaugeMetricFamily]:
        under_way = ((key, it.progress) for key, it in self._figures.items() if it.progress is not None)
        shown = list(islice(under_way, MOST_JOBS))
        for field, (name, text) in JOB_GAUGES.items():
            family = GaugeMetricFamily(name, text, labels=JOB_LABELS)
            for key, progress in shown:
                if (value := getattr(progress, field)) is not None:
                    family.add_metric(key, value)
            yield family
        yield GaugeMetricFamily(*LEFT_OUT, value=sum(1 for _ in under_way))


def _start_counters(kind: str, namespace: str) -> None:
    """Create the counters of a namespace at zero."""
    for class_ in ALARMING:
        metrics.FAILURES.labels(kind, namespace, class_)
    for phase in FINAL if kind in JOBS else ():
        metrics.FINISHED.labels(kind, namespace, phase)


def _count_transitions(key: ResourceKey, before: Figures, now: Figures) -> None:
    """Add the difference between two states to the counters."""
    place = (key.kind, key.namespace)
    if now.failure and now.failure_id != before.failure_id:
        metrics.FAILURES.labels(*place, now.failure).inc()
    if key.kind not in JOBS:
        return
    metrics.QUEUED_SECONDS.labels(*place).inc(max(now.queued_seconds - before.queued_seconds, 0.0))
    if now.accelerator:
        used = now.accelerator_seconds - before.accelerator_seconds
        metrics.ACCELERATOR_SECONDS.labels(*place, now.accelerator).inc(max(used, 0.0))
    if key.kind == "FineTuneJob":
        metrics.TRAINED_TOKENS.labels(key.namespace).inc(max(now.trained_tokens - before.trained_tokens, 0.0))
    if now.phase in FINAL and before.phase not in FINAL:
        metrics.FINISHED.labels(*place, now.phase).inc()
