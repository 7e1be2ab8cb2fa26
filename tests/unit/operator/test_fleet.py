"""The figures of each namespace: those of the existing resources, independent of when the process started."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tunesmith_api.failures import FailureClass
from tunesmith_operator import fleet, metrics
from tunesmith_operator.fleet import MOST_JOBS, Fleet, figures
from tunesmith_operator.plan.types import Raw
from tunesmith_operator.resources import key_of

ROOT = Path(__file__).parents[3]
UPDATED = "2026-01-02T03:04:05Z"


def resource(kind: str = "FineTuneJob", name: str = "a", namespace: str = "team", **status: Any) -> Raw:
    return {
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "uid": f"{namespace}/{name}", "resourceVersion": "1"},
        "spec": {"resources": {"accelerator": "nvidia"}},
        "status": status,
    }


def fleet_of(*resources: Raw) -> Fleet:
    fleet = Fleet()
    for resource in resources:
        fleet.update(key_of(resource), resource)
    return fleet


def series(fleet: Fleet) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every series of the figures on /metrics."""
    registry = CollectorRegistry()
    registry.register(fleet)
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(fleet: Fleet, name: str, /, **labels: str) -> float | None:
    return series(fleet).get((name, frozenset(labels.items())))


def counted(counter: Any, *labels: str) -> float:
    return float(counter.labels(*labels)._value.get())


def test_resources_are_summed_by_kind_namespace_and_phase() -> None:
    fleet = fleet_of(
        resource(name="a", phase="Running"),
        resource(name="b", phase="Running"),
        resource(name="c", namespace="other", phase="Running"),
        resource("EvalJob", "a", phase="Running"),
        resource(name="new"),
    )
    found = {labels: number for (name, labels), number in series(fleet).items() if name == "tunesmith_resources"}
    assert found == {
        frozenset({("kind", "FineTuneJob"), ("namespace", "team"), ("phase", "Running")}): 2,
        frozenset({("kind", "FineTuneJob"), ("namespace", "other"), ("phase", "Running")}): 1,
        frozenset({("kind", "EvalJob"), ("namespace", "team"), ("phase", "Running")}): 1,
        frozenset({("kind", "FineTuneJob"), ("namespace", "team"), ("phase", "New")}): 1,
    }


def test_usage_is_summed_by_namespace_in_base_units() -> None:
    fleet = fleet_of(
        resource(name="a", phase="Succeeded", acceleratorHours=1.5, queuedSeconds=60, metrics={"tokens": 1000}),
        resource(name="b", phase="Running", acceleratorHours=0.5, queuedSeconds=30),
    )
    place = {"kind": "FineTuneJob", "namespace": "team"}
    assert value(fleet, "tunesmith_resources_accelerator_seconds", accelerator="nvidia", **place) == 7200
    assert value(fleet, "tunesmith_resources_queued_seconds", **place) == 90
    assert value(fleet, "tunesmith_resources_trained_tokens", namespace="team") == 1000


def test_verdicts_promotions_failures_and_stalled_resources_are_counted() -> None:
    blocked = [{"type": "PromotionBlocked", "status": "True"}, {"type": "Stalled", "status": "True"}]
    fleet = fleet_of(
        resource("EvalJob", "e", phase="Succeeded", verdict="Failed"),
        resource("InferenceService", "s", phase="Blocked", conditions=blocked),
        resource(name="f", phase="Failed", lastFailure={"class": "BadRow", "time": UPDATED}),
    )
    assert value(fleet, "tunesmith_resources_verdict", namespace="team", verdict="Failed") == 1
    assert value(fleet, "tunesmith_resources_promotion", namespace="team", promotion="Blocked") == 1
    assert value(fleet, "tunesmith_resources_stalled", namespace="team", kind="InferenceService") == 1
    failed = {"kind": "FineTuneJob", "namespace": "team", "class": "BadRow"}
    assert value(fleet, "tunesmith_resources_last_failure", **failed) == 1


@pytest.mark.parametrize(
    ("status", "unavailable"),
    [
        ({"phase": "Pending"}, 1),
        ({"phase": "Ready", "conditions": [{"type": "Ready", "status": "True"}]}, 0),
        ({"phase": "RollingOut", "conditions": [{"type": "Ready", "status": "True"}]}, 0),
        ({"phase": "Ready", "reason": "ScaledToZero", "conditions": [{"type": "Ready", "status": "False"}]}, 0),
        ({"phase": "Suspended"}, 0),
        ({"phase": "Waiting", "reason": "WaitingForModel"}, 0),
        ({"phase": "Blocked"}, 0),
        ({"phase": "Blocked", "version": "a1"}, 1),
        ({"phase": "Waiting", "version": "a1"}, 1),
        ({}, 1),
    ],
)
def test_a_service_that_should_answer_and_does_not_is_unavailable(status: Raw, unavailable: int) -> None:
    fleet = fleet_of(resource("InferenceService", **status))
    assert value(fleet, "tunesmith_resources_unavailable", namespace="team") == unavailable


WAITS: Raw = {"class": "Unschedulable", "time": UPDATED}
NOT_STARTING = "tunesmith_resources_not_starting_since_timestamp_seconds"


@pytest.mark.parametrize(
    ("status", "since"),
    [
        ({"phase": "Pending", "lastFailure": WAITS}, 1767323045),
        (
            {"phase": "RollingOut", "lastFailure": WAITS, "conditions": [{"type": "Ready", "status": "False"}]},
            1767323045,
        ),
        ({"phase": "RolledBack", "lastFailure": WAITS, "conditions": [{"type": "Ready", "status": "True"}]}, None),
        ({"phase": "Failed", "lastFailure": WAITS}, None),
        ({"phase": "Pending", "lastFailure": {**WAITS, "class": "OOMKilled"}}, None),
    ],
)
def test_pods_that_do_not_start_are_exposed_with_their_waiting_since(status: Raw, since: int | None) -> None:
    labels = {"kind": "InferenceService", "namespace": "team"}
    assert (
        value(fleet_of(resource("InferenceService", **status)), NOT_STARTING, **labels, **{"class": "Unschedulable"})
        == since
    )


def test_the_longest_wait_of_pods_that_do_not_start_is_exposed() -> None:
    later = {**WAITS, "time": "2026-01-02T05:04:05Z"}
    fleet = fleet_of(
        resource(name="a", phase="Pending", lastFailure=later), resource(name="b", phase="Pending", lastFailure=WAITS)
    )
    labels = {"kind": "FineTuneJob", "namespace": "team", "class": "Unschedulable"}
    assert value(fleet, NOT_STARTING, **labels) == 1767323045


def test_counters_behind_alerts_start_at_zero_with_the_first_resource_of_a_namespace() -> None:
    """A counter whose first sample is 20 has not increased, as Prometheus computes it."""
    rules = yaml.safe_load((ROOT / "charts/tunesmith/monitoring/alerts.yaml").read_text())
    asked = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    patterns = re.findall(r'tunesmith_failures_total\{class=~"([^"]+)"', "\n".join(asked))
    watched = {class_ for class_ in FailureClass if any(re.fullmatch(pattern, class_) for pattern in patterns)}
    assert len(patterns) == 2
    fleet_of(resource(namespace="new", phase="Pending"))
    text = metrics.exposition().decode()
    for class_ in watched:
        assert f'tunesmith_failures_total{{class="{class_}",kind="FineTuneJob",namespace="new"}} 0.0' in text
    for phase in ("Succeeded", "Failed"):
        assert f'tunesmith_finished_total{{kind="FineTuneJob",namespace="new",phase="{phase}"}} 0.0' in text


@pytest.mark.parametrize(
    ("status", "time"),
    [
        ({}, None),
        ({"attempts": [{"number": 1, "startTime": UPDATED}]}, 1767323045),
        ({"attempts": [{"number": 1, "startTime": UPDATED, "endTime": UPDATED}]}, None),
        (
            {"attempts": [{"number": 2, "startTime": UPDATED}], "progress": {"updated": "2026-01-01T00:00:00Z"}},
            1767323045,
        ),
    ],
)
def test_a_job_without_a_report_counts_as_silent_since_its_start(status: Raw, time: int | None) -> None:
    job = {"kind": "FineTuneJob", "namespace": "team", "name": "a"}
    assert (
        value(fleet_of(resource(phase="Running", **status)), "tunesmith_job_last_report_timestamp_seconds", **job)
        == time
    )


def test_only_running_jobs_have_series_of_their_own() -> None:
    progress = {"percent": 40, "step": 4, "totalSteps": 10, "loss": 1.25, "updated": UPDATED}
    fleet = fleet_of(resource(phase="Running", attempt=2, progress=progress))
    job = {"kind": "FineTuneJob", "namespace": "team", "name": "a"}
    assert value(fleet, "tunesmith_job_progress_ratio", **job) == 0.4
    assert value(fleet, "tunesmith_job_step", **job) == 4
    assert value(fleet, "tunesmith_job_loss", **job) == 1.25
    assert value(fleet, "tunesmith_job_attempt", **job) == 2
    assert value(fleet, "tunesmith_job_last_report_timestamp_seconds", **job) == 1767323045
    assert value(fleet, "tunesmith_job_eval_loss", **job) is None
    for phase in ("Pending", "Suspended", "Succeeded", "Failed"):
        after = resource(phase=phase, attempt=2, progress=progress)
        fleet.update(key_of(after), after)
        assert not [name for name, labels in series(fleet) if "name" in dict(labels)]


def test_the_series_of_jobs_are_bounded_and_the_rest_is_counted() -> None:
    fleet = fleet_of(
        *(resource(name=f"job-{n}", phase="Running", progress={"percent": n % 100}) for n in range(MOST_JOBS + 7))
    )
    ratios = [labels for name, labels in series(fleet) if name == "tunesmith_job_progress_ratio"]
    assert len(ratios) == MOST_JOBS
    assert value(fleet, "tunesmith_jobs_left_out") == 7


PHASES = ("", "Waiting", "Pending", "Running", "Suspended", "Succeeded", "Failed")
statuses = st.fixed_dictionaries(
    {},
    optional={
        "phase": st.sampled_from(PHASES[1:]),
        "acceleratorHours": st.integers(0, 8).map(lambda eighths: eighths / 8),
        "queuedSeconds": st.integers(0, 100),
        "metrics": st.fixed_dictionaries({"tokens": st.integers(0, 100)}),
        "lastFailure": st.fixed_dictionaries(
            {"class": st.sampled_from(["BadRow", "OOMKilled"]), "time": st.just(UPDATED)}
        ),
        "progress": st.fixed_dictionaries({"percent": st.integers(0, 100)}),
    },
)
resources = st.builds(
    lambda kind, name, namespace, status: resource(kind, name, namespace, **status),
    st.sampled_from(["FineTuneJob", "EvalJob", "InferenceService"]),
    st.sampled_from("abc"),
    st.sampled_from(["team", "other"]),
    statuses,
)


@given(st.lists(st.tuples(st.booleans(), resources), max_size=30))
def test_the_gauges_are_the_same_after_a_restart(events: list[tuple[bool, Raw]]) -> None:
    """The list of the existing resources gives the same gauges as all events before."""
    fleet, left = Fleet(), {}
    for gone, resource in events:
        if gone:
            fleet.remove(key_of(resource))
            left.pop(key_of(resource), None)
        else:
            fleet.update(key_of(resource), resource)
            left[key_of(resource)] = resource
    remaining = list(left.values())
    random.Random(0).shuffle(remaining)
    assert series(fleet_of(*remaining)) == series(fleet)


def test_a_transition_is_counted_once_and_existing_state_is_not() -> None:
    space = "counted"
    before = resource(
        namespace=space, phase="Running", acceleratorHours=1, lastFailure={"class": "BadRow", "time": "1"}
    )
    fleet = fleet_of(before)
    used = (metrics.ACCELERATOR_SECONDS, "FineTuneJob", space, "nvidia")
    failed = (metrics.FAILURES, "FineTuneJob", space, "OOMKilled")
    ended = (metrics.FINISHED, "FineTuneJob", space, "Failed")
    assert [counted(*series) for series in (used, failed, ended)] == [0, 0, 0]
    after = resource(
        namespace=space, phase="Failed", acceleratorHours=1.5, lastFailure={"class": "OOMKilled", "time": "2"}
    )
    for _ in range(2):
        fleet.update(key_of(after), after)
    assert [counted(*series) for series in (used, failed, ended)] == [1800, 1, 1]
    less = resource(namespace=space, phase="Pending", acceleratorHours=0.5)  # deleted and created again in between
    fleet.update(key_of(less), less)
    assert counted(*used) == 1800


def test_a_resource_costs_less_than_half_a_kilobyte() -> None:
    status = {
        "phase": "Failed",
        "acceleratorHours": 1.5,
        "queuedSeconds": 7,
        "metrics": {"tokens": 5},
        "lastFailure": {"class": "BadRow", "time": UPDATED},
        "progress": {"percent": 3},
    }
    kept = figures(resource(**status))
    own: Iterable[Any] = [part for part in kept if isinstance(part, float) or part == kept.failure_id]
    assert sys.getsizeof(kept) + sum(map(sys.getsizeof, own)) < 512


def test_no_metric_name_is_used_twice() -> None:
    names = [gauge.name for gauge in fleet.SUMS] + [name for name, _ in fleet.JOB_GAUGES.values()] + [fleet.LEFT_OUT[0]]
    registered = {name for names in metrics.REGISTRY._collector_to_names.values() for name in names}
    assert len(set(names)) == len(names)
    assert not registered & set(names)
