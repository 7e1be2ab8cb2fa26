"""Roll-out of a version, and its rollback if it is not ready in time."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.unit.operator.plan.inferenceservice.support import (
    LATE,
    NO_IMAGE,
    change,
    deployed,
    evaluated,
    fail,
    gated,
    ready,
    retuned,
    rolled_back,
    serve_pod,
    serving,
    template,
    version,
)
from tests.unit.operator.plan.world import (
    Cluster,
    condition,
    ended,
    failed_report,
    inference_service,
    report,
    waiting,
)
from tunesmith_operator.plan.times import format_time
from tunesmith_operator.plan.types import EventType, Raw, Reference


def broken(class_: str) -> Raw:
    """The states of a pod whose fetch has found a fault in the model, and is started again."""
    state = ended(89, failed_report("fetch", class_, "s3://m/config.json: the files lack a.weight", hint="upload it"))
    return {"fetch": {"state": waiting("CrashLoopBackOff"), "lastState": state, "restartCount": 1}}


def test_a_new_version_takes_over_when_its_pods_are_ready():
    cluster = gated()
    ready(cluster)
    old = version(cluster)
    cluster.others[Reference("FineTuneJob", "support")] = retuned("e5")
    cluster.others[Reference("EvalJob", "check")] = evaluated("Passed", "e5")
    cluster.settle()
    assert version(cluster) != old
    deployed(cluster, replicas=2, readyReplicas=1, updatedReplicas=1)
    cluster.settle()
    assert cluster.status["phase"] == "RollingOut"
    assert (cluster.status["model"]["digest"], cluster.status["candidate"]["digest"]) == ("d2", "e5")
    assert cluster.status["version"] == old
    assert cluster.condition("Ready")["status"] == "True"
    ready(cluster)
    assert cluster.status["phase"] == "Ready"
    assert cluster.status["model"]["digest"] == "e5"
    assert "candidate" not in cluster.status


@pytest.mark.parametrize(
    ("states", "class_", "words"),
    [
        ({"fetch": {"state": waiting("ErrImagePull", "not found")}}, "ImagePull", "registry/runtime:1"),
        (
            {
                "fetch": {"state": ended(message=report("fetch"))},
                "serve": {
                    "state": waiting("CrashLoopBackOff"),
                    "lastState": ended(83, failed_report("serve", "EngineFailed", "no such architecture")),
                    "restartCount": 2,
                },
            },
            "EngineFailed",
            "no such architecture",
        ),
        (
            {"fetch": {"state": waiting("CrashLoopBackOff"), "lastState": ended(77), "restartCount": 1}},
            "Storage403",
            "exited with code 77",
        ),
    ],
)
def test_the_cause_of_a_pod_that_does_not_start_is_reported(states, class_, words):
    cluster = Cluster(inference_service())
    cluster.settle()
    serve_pod(cluster, states)
    cluster.settle()
    assert cluster.status["lastFailure"]["class"] == class_
    assert words in cluster.status["message"]
    assert cluster.status["reason"] == class_
    assert cluster.condition("Reconciling")["status"] == "True"


def test_a_quota_that_admits_no_pod_is_reported():
    cluster = Cluster(inference_service())
    cluster.settle()
    failure = condition("ReplicaFailure", True, "FailedCreate", 'pods "x" is forbidden: exceeded quota: gpu')
    deployed(cluster, conditions=[failure])
    cluster.settle()
    assert cluster.status["lastFailure"]["class"] == "QuotaExceeded"


def test_a_version_that_is_not_ready_in_time_is_stalled_with_the_cause():
    cluster = Cluster(inference_service(rollout={"readyTimeout": "1m"}))
    cluster.settle()
    late = condition("Progressing", False, "ProgressDeadlineExceeded")
    deployed(cluster, replicas=1, conditions=[late])
    serve_pod(cluster, {"fetch": {"state": waiting("ErrImagePull", "not found")}})
    cluster.settle()
    assert cluster.status["reason"] == "RolloutTimeout"
    assert "readyTimeout (1m)" in cluster.status["message"]
    assert "not found" in cluster.status["message"]
    assert cluster.condition("Stalled")["status"] == "True"


def test_a_version_that_is_not_ready_in_time_is_rolled_back() -> None:
    cluster = serving()
    before = template(cluster)
    change(cluster, maxModelLength=512)
    bad = version(cluster)
    fail(cluster)
    assert template(cluster) == before
    assert cluster.status["rolledBack"]["version"] == bad
    ready(cluster)
    assert (cluster.status["phase"], cluster.status["reason"]) == ("RolledBack", "RolledBack")
    for word in (bad, "readyTimeout (30m)", "not found", "1 of 1 pods are ready", "change the spec"):
        assert word in cluster.status["message"]
    assert cluster.condition("RolledBack")["status"] == "True"
    assert cluster.condition("Ready")["status"] == "True"
    assert cluster.condition("Stalled")["status"] == "True"
    assert cluster.status["lastFailure"]["class"] == "ImagePull", "the cause outlives its pod"
    assert cluster.status["candidate"] == {"uri": "s3://models/a"}
    assert [event.reason for event in cluster.events].count("RolledBack") == 1
    assert next(event for event in cluster.events if event.reason == "RolledBack").type is EventType.WARNING


def test_status_records_the_rollback_before_it_begins() -> None:
    cluster = serving()
    change(cluster, maxModelLength=512)
    deployed(cluster, replicas=2, readyReplicas=1, updatedReplicas=1, conditions=[LATE])
    given_up = cluster.reconcile()
    assert given_up.apply == ()
    assert given_up.status
    assert given_up.status["rolledBack"]
    assert given_up.for_good
    assert given_up.requeue_after == 1
    next_plan = cluster.reconcile()
    assert [manifest["kind"] for manifest in next_plan.apply] == ["Deployment"]
    assert not next_plan.for_good


def test_the_first_version_is_not_rolled_back() -> None:
    cluster = Cluster(inference_service())
    cluster.settle()
    before = template(cluster)
    fail(cluster)
    assert template(cluster) == before
    assert cluster.status["reason"] == "RolloutTimeout"
    assert "No other version was ready before" in cluster.status["message"]


@pytest.mark.parametrize("class_", ["BadModel", "ModelNotFound", "UnsafeWeights", "BadSpec"])
def test_a_permanent_fault_of_the_model_fails_a_first_version_immediately(class_: str) -> None:
    cluster = Cluster(inference_service())
    cluster.settle()
    deployed(cluster, replicas=1, readyReplicas=0, updatedReplicas=1)
    serve_pod(cluster, broken(class_))
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Failed", class_)
    assert cluster.condition("Stalled")["status"] == "True"
    for word in ("the files lack a.weight", "upload it"):
        assert word in cluster.status["message"]
    assert "readyTimeout" not in cluster.status["message"]
    ready(cluster)
    assert cluster.status["phase"] == "Ready", "a model that is fixed where it is needs no other change"


def test_a_permanent_fault_of_the_model_rolls_a_later_version_back_immediately() -> None:
    cluster = serving()
    before = template(cluster)
    change(cluster, maxModelLength=512)
    deployed(cluster, replicas=2, readyReplicas=1, updatedReplicas=1)
    serve_pod(cluster, broken("BadModel"))
    cluster.settle()
    assert template(cluster) == before
    assert "the files lack a.weight" in cluster.status["rolledBack"]["message"]


def test_a_served_version_is_not_given_up_when_its_model_is_damaged_later() -> None:
    cluster = serving(replicas=2)
    before = template(cluster)
    deployed(cluster, replicas=2, readyReplicas=1, updatedReplicas=2)
    serve_pod(cluster, broken("BadModel"))
    cluster.settle()
    assert template(cluster) == before
    assert cluster.status["phase"] == "Ready"
    assert cluster.status["lastFailure"]["class"] == "BadModel"


def test_a_version_that_was_ready_before_is_not_given_up() -> None:
    cluster = serving()
    before = template(cluster)
    cluster.deployments.clear()
    cluster.settle()
    fail(cluster)
    assert template(cluster) == before
    assert cluster.status["reason"] == "RolloutTimeout"
    assert "It was ready before" in cluster.status["message"]


def test_a_version_is_late_by_the_age_of_its_pods_without_a_progress_deadline() -> None:
    cluster = serving(rollout={"readyTimeout": "10m"})
    before = template(cluster)
    change(cluster, maxModelLength=512)
    deployed(cluster, replicas=2, readyReplicas=1, updatedReplicas=1)
    pod = serve_pod(cluster, NO_IMAGE)
    pod["metadata"] = {**pod["metadata"], "creationTimestamp": format_time(cluster.now)}
    cluster.now += timedelta(minutes=9)
    cluster.settle()
    assert cluster.status["phase"] == "RollingOut"
    assert cluster.plans[-1].requeue_after
    assert cluster.plans[-1].requeue_after <= 60
    cluster.now += timedelta(minutes=1)
    cluster.settle()
    assert cluster.status["phase"] == "RolledBack"
    assert template(cluster) == before


def test_a_late_rollback_is_not_rolled_back() -> None:
    cluster = rolled_back()
    good = template(cluster)
    deployed(cluster, replicas=1, readyReplicas=0, updatedReplicas=1, conditions=[LATE])
    cluster.settle()
    assert template(cluster) == good
    assert cluster.status["phase"] == "RolledBack"
    assert cluster.condition("Ready")["status"] == "False"


def test_a_surge_without_capacity_is_reported_with_the_hint_recreate() -> None:
    cluster = serving()
    change(cluster, maxModelLength=512)
    deployed(cluster, replicas=2, readyReplicas=1, updatedReplicas=1, conditions=[LATE])
    no_gpu = condition(
        "PodScheduled", False, "Unschedulable", "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    )
    serve_pod(cluster, {}, conditions=[no_gpu], startTime=None)
    cluster.settle()
    assert "spec.rollout.strategy: Recreate" in cluster.status["message"]
