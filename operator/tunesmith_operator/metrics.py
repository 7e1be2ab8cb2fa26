"""Metrics of the process, which /metrics exposes; those of the resources are in fleet.py."""

from __future__ import annotations

import platform

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from tunesmith_api.release import VERSION

disable_created_metrics()  # a second series per counter

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

RECONCILES = Counter(
    "tunesmith_reconcile_total", "Reconciles, by kind and result (ok, error).", ["kind", "result"], registry=REGISTRY
)
RECONCILE_SECONDS = Histogram(
    "tunesmith_reconcile_seconds",
    "Duration of a reconcile.",
    ["kind"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=REGISTRY,
)
QUEUE_DEPTH = Gauge("tunesmith_queue_depth", "Resources that wait for a worker.", registry=REGISTRY)
QUEUE_DELAYED = Gauge("tunesmith_queue_delayed", "Resources that wait for a time.", registry=REGISTRY)
QUEUE_OLDEST_SECONDS = Gauge(
    "tunesmith_queue_oldest_seconds", "Waiting time of the oldest key in the queue.", registry=REGISTRY
)
API_REQUESTS = Counter(
    "tunesmith_api_requests_total",
    "Requests to the API server, by verb and status code.",
    ["verb", "code"],
    registry=REGISTRY,
)
WATCH_EVENTS = Counter("tunesmith_watch_events_total", "Watch events received, by kind.", ["kind"], registry=REGISTRY)
LAST_WATCH_EVENT = Gauge(
    "tunesmith_watch_last_event_timestamp_seconds",
    "Time of the latest watch event, by kind.",
    ["kind"],
    registry=REGISTRY,
)
EVENTS_SENT = Counter(
    "tunesmith_events_total", "Events written about resources, by result (ok, error).", ["result"], registry=REGISTRY
)
PROGRESS_REPORTS = Counter(
    "tunesmith_progress_reports_total", "Progress reports from pods, by HTTP status.", ["code"], registry=REGISTRY
)
FAILURES = Counter(
    "tunesmith_failures_total",
    "Observed failures, by kind and namespace of the resource and class of the failure.",
    ["kind", "namespace", "class"],
    registry=REGISTRY,
)
FINISHED = Counter(
    "tunesmith_finished_total",
    "Jobs that have ended, by phase (Succeeded, Failed).",
    ["kind", "namespace", "phase"],
    registry=REGISTRY,
)
ACCELERATOR_SECONDS = Counter(
    "tunesmith_accelerator_seconds_total",
    "Device seconds that jobs have used.",
    ["kind", "namespace", "accelerator"],
    registry=REGISTRY,
)
QUEUED_SECONDS = Counter(
    "tunesmith_queued_seconds_total",
    "Seconds that jobs have waited for a queue or a node.",
    ["kind", "namespace"],
    registry=REGISTRY,
)
TRAINED_TOKENS = Counter(
    "tunesmith_trained_tokens_total", "Tokens trained on by completed runs.", ["namespace"], registry=REGISTRY
)
LEADER = Gauge("tunesmith_leader", "1 if this replica is the leader.", registry=REGISTRY)
LOOP_LAG_SECONDS = Gauge(
    "tunesmith_event_loop_lag_seconds", "Delay of the event loop at its last heartbeat.", registry=REGISTRY
)
BUILD_INFO = Gauge(
    "tunesmith_build_info", "Always 1; the labels are the versions.", ["version", "python"], registry=REGISTRY
)
BUILD_INFO.labels(VERSION, platform.python_version()).set(1)


def exposition() -> bytes:
    """The text that Prometheus scrapes."""
    return generate_latest(REGISTRY)
