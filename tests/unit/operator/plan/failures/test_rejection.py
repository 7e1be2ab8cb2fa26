"""Why the API server rejected a child."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.unit.operator.plan.failures.pods import event
from tests.unit.operator.plan.world import (
    Cluster,
    fine_tune_job,
    running,
    waiting,
)
from tunesmith_api.failures import FailureClass
from tunesmith_operator.plan import KINDS
from tunesmith_operator.plan.failures.rejection import pod_creation_failure, rejection_failure
from tunesmith_operator.plan.times import format_time
from tunesmith_operator.plan.types import Key


@pytest.mark.parametrize(
    ("message", "class_"),
    [
        ('pods "a" is forbidden: exceeded quota: gpu, requested: nvidia.com/gpu=1', FailureClass.QUOTA_EXCEEDED),
        ('pods "a" is forbidden: violates PodSecurity "restricted:latest"', FailureClass.POD_REFUSED),
        ('admission webhook "policy.example" denied the request', FailureClass.POD_REFUSED),
    ],
)
def test_the_cause_of_a_job_without_a_pod_is_found_in_its_events(message, class_):
    job = {"metadata": {"name": "support-tune-1", "uid": "u"}}
    events = [event("Job", "support-tune-1", "FailedCreate", message, 1), event("Job", "other", "FailedCreate", "x", 2)]
    failure = pod_creation_failure(job, events)
    assert failure
    assert (failure.class_, failure.message) == (class_, message)
    assert pod_creation_failure(job, []) is None
    assert rejection_failure(message, "team", "FineTuneJob").class_ is class_


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ("status unknown for quota: all, resources: pods,requests.cpu", "wait: ResourceQuota all is new and not counted yet"),
        ("insufficient quota to consume: requests.nvidia.com/gpu", "ask an administrator for a ResourceQuota for requests.nvidia.com/gpu in namespace team"),
        (
            "insufficient quota to match these scopes: [{PriorityClass In [high]}]",
            "ask an administrator for a ResourceQuota of the named scopes in namespace team",
        ),
    ],
)  # fmt: skip
def test_a_missing_quota_is_distinguished_from_a_full_quota(message: str, hint: str) -> None:
    found = rejection_failure(f'pods "a" is forbidden: {message}', "team", "EvalJob")
    assert found.class_ is FailureClass.QUOTA_EXCEEDED
    assert found.hint
    assert found.hint.startswith(hint)
    assert "in spec.resources" not in found.hint


def without_pods(cluster: Cluster, job: str = "support-tune-1") -> None:
    """The Job controller has tried, and could make no pod: what it writes at its first try."""
    cluster.jobs[job]["status"] = {"startTime": format_time(cluster.now), "ready": 0, "uncountedTerminatedPods": {}}


def test_events_are_read_only_for_troubles_that_no_status_shows():
    cluster = Cluster(fine_tune_job())
    cluster.settle()
    wants = KINDS["FineTuneJob"].wants_events
    cluster.now += timedelta(minutes=5)
    assert wants(cluster.resource, cluster.observed(), cluster.now) == frozenset(), "its controller is behind"
    without_pods(cluster)
    assert wants(cluster.resource, cluster.observed(), cluster.now) == {Key("Job", "support-tune-1")}
    cluster.jobs["support-tune-1"]["status"]["active"] = 1
    assert wants(cluster.resource, cluster.observed(), cluster.now) == frozenset()
    thing = cluster.start_pod("support-tune-1", "Pending", {"fetch": waiting("ContainerCreating")})
    assert wants(cluster.resource, cluster.observed(), cluster.now) == frozenset()
    later = cluster.now + timedelta(seconds=21)
    assert wants(cluster.resource, cluster.observed(), later) == {Key("Pod", thing["metadata"]["name"])}
    cluster.start_pod("support-tune-1", "Running", {"fetch": running()})
    assert wants(cluster.resource, cluster.observed(), later) == frozenset()


def test_status_shows_a_quota_as_soon_as_its_event_exists():
    cluster = Cluster(fine_tune_job())
    cluster.settle()
    assert cluster.plan().requeue_after is None, "the next change of the Job wakes it"
    without_pods(cluster)
    assert cluster.plan().requeue_after == 1.0, "the Event follows"
    cluster.kubernetes_events.append(event("Job", "support-tune-1", "FailedCreate", "exceeded quota: gpu"))
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Pending", "QuotaExceeded")
    assert cluster.plan().requeue_after == 15.0
