"""Retries, deadlines, times to live, suspension and queues, on a real API server and Job controller."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from tests.apiserver.cluster import KINDS, Cluster, Kubelet, Raw, Refused
from tests.apiserver.finetunejobs import MESSAGES, started, succeed, tune, tune_on_devices

pytestmark = pytest.mark.usefixtures("operator")

GPU = {"accelerator": "nvidia", "cpu": "100m"}
CHECKPOINT = {"uri": "s3://models/runs/x/y/z/checkpoints/7", "step": 7}
STOPPED = json.dumps({"verb": "train", "outcome": "Preempted", "lastCheckpoint": CHECKPOINT})


def status(cluster: Cluster, name: str) -> Raw:
    found: Raw = (cluster.get("FineTuneJob", name) or {}).get("status") or {}
    return found


def attempt(cluster: Cluster, name: str, number: int) -> Kubelet:
    """The pod of an attempt, bound to a node."""
    kubelet = Kubelet(cluster, cluster.pod_of(f"{name}-tune-{number}"))
    kubelet.bind()
    return kubelet


def stops(kubelet: Kubelet) -> None:
    """The pod, which was asked to go, saves its state and goes."""
    kubelet.ends({"fetch": MESSAGES["fetch"]}, {"train": {"exitCode": 75, "message": STOPPED}})
    path = KINDS["Pod"].path(kubelet.cluster.namespace, kubelet.name)
    try:
        kubelet.cluster.request("DELETE", path, {"gracePeriodSeconds": 0})
    except Refused as error:
        if error.status != 404:  # the garbage collector deletes an ended pod at once if its Job is gone
            raise


def seconds_between(earlier: str, later: str) -> float:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


def test_what_runs_out_of_memory_is_tried_again_after_a_pause_and_given_up(cluster: Cluster) -> None:
    tune_on_devices(cluster, "support", retries=1, resources=GPU)
    for number in (1, 2):
        attempt(cluster, "support", number).ends(MESSAGES, {"train": {"exitCode": 137, "reason": "OOMKilled"}})
    final = cluster.until_phase("FineTuneJob", "support", "Failed")["status"]
    assert final["reason"] == "OOMKilled"
    assert "no retries are left of 1" in final["message"]
    assert (final["attempt"], final["failures"]) == (2, 2)
    rows = [(row["number"], row["outcome"], row["failures"]) for row in final["attempts"]]
    assert rows == [(1, "OOMKilled", 1), (2, "OOMKilled", 2)]
    first, second = final["attempts"]
    assert seconds_between(first["endTime"], second["startTime"]) >= 10
    assert final["queuedSeconds"] == first["queuedSeconds"] + second["queuedSeconds"]
    assert final["acceleratorHours"] == pytest.approx(
        (first["acceleratorSeconds"] + second["acceleratorSeconds"]) / 3600, abs=1e-4
    )


def test_a_bad_spec_is_never_tried_again(cluster: Cluster) -> None:
    tune(cluster, "support", retries=9)
    failure = {"class": "BadSpec", "message": "training.maxLength 8192: the model holds 2048"}
    message = json.dumps({"verb": "train", "outcome": "Failed", "failure": failure})
    attempt(cluster, "support", 1).ends(MESSAGES, {"train": {"exitCode": 64, "message": message}})
    final = cluster.until_phase("FineTuneJob", "support", "Failed")["status"]
    assert (final["reason"], final["attempt"]) == ("BadSpec", 1)
    assert len(cluster.find("Job")) == 1


def _evict(kubelet: Kubelet) -> None:
    """As `kubectl drain` does; the pod then saves its state."""
    path = KINDS["Pod"].path(kubelet.cluster.namespace, kubelet.name, "eviction")
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": kubelet.name}}
    kubelet.cluster.request("POST", path, eviction)
    stops(kubelet)


DISRUPTIONS: dict[str, tuple[str, Callable[[Kubelet], None]]] = {
    "lost": ("NodeLost", lambda kubelet: kubelet.evicted("NodeLost", "the node went away")),
    "starved": ("Evicted", lambda kubelet: kubelet.evicted("Evicted", "The node was low on resource: memory.")),
    "displaced": ("Preempted", lambda kubelet: kubelet.evicted("Preempting", "Preempted to admit a critical pod")),
    "drained": ("Preempted", _evict),
}


def test_what_is_no_fault_of_its_own_is_tried_again_without_counting(cluster: Cluster) -> None:
    for name, (_, happens) in DISRUPTIONS.items():
        tune(cluster, name, retries=0)
        kubelet = attempt(cluster, name, 1)
        kubelet.runs("train")
        happens(kubelet)
    for name, (class_, _) in DISRUPTIONS.items():
        cluster.job(f"{name}-tune-2")
        final = cluster.until(name, lambda name=name: it if (it := status(cluster, name)).get("attempt") == 2 else None)
        assert final["lastFailure"]["class"] == class_
        assert [row["outcome"] for row in final["attempts"] if "endTime" in row] == [class_]
        assert final["preemptions"] == 1
        assert "failures" not in final


def test_the_deadline_counts_from_the_first_start_and_takes_the_pods(cluster: Cluster) -> None:
    tune(cluster, "support", deadline="3s")
    kubelet = attempt(cluster, "support", 1)
    kubelet.runs("train")
    final = cluster.until_phase("FineTuneJob", "support", "Failed")["status"]
    assert final["reason"] == "DeadlineExceeded"
    assert seconds_between(final["startTime"], final["completionTime"]) >= 3
    cluster.until_gone("Job", "support-tune-1")
    stops(kubelet)

    def at_rest() -> Raw | None:
        found = status(cluster, "support")
        conditions = {condition["type"]: condition["status"] for condition in found["conditions"]}
        return found if conditions["Reconciling"] == "False" else None

    final = cluster.until("nothing is left at work", at_rest)
    assert (final["attempts"][0]["outcome"], final["children"]) == ("Stopped", [])
    assert cluster.get("FineTuneJob", "support")


def test_a_pod_that_is_not_scheduled_in_time_ends_the_job_with_what_was_lacking(cluster: Cluster) -> None:
    tune_on_devices(cluster, "support", pendingDeadline="3s", resources=GPU)
    kubelet = Kubelet(cluster, cluster.pod_of("support-tune-1"))
    kubelet.unschedulable("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")
    final = cluster.until_phase("FineTuneJob", "support", "Failed")["status"]
    assert final["reason"] == "DeadlineExceeded"
    assert "no node has enough nvidia.com/gpu" in final["message"]
    assert final["attempts"][0]["acceleratorSeconds"] == 0


def test_after_its_time_to_live_the_children_go_and_the_resource_stays(cluster: Cluster) -> None:
    succeed(cluster, "support")
    assert cluster.get("Job", "support-tune-1")
    before = status(cluster, "support")
    cluster.patch("FineTuneJob", "support", {"spec": {"ttlAfterFinished": "1s"}})
    cluster.until_gone("Job", "support-tune-1")
    cluster.until("its pods are gone", lambda: not cluster.find("Pod"))
    after = cluster.until(
        "no children", lambda: found if not (found := status(cluster, "support"))["children"] else None
    )
    assert (after["phase"], after["artifacts"]) == ("Succeeded", before["artifacts"])
    assert after["attempts"] == before["attempts"]


def test_what_was_suspended_goes_on_as_a_new_attempt_that_does_not_count(cluster: Cluster) -> None:
    kubelet = started(cluster, "support")
    kubelet.runs("train")
    cluster.until_phase("FineTuneJob", "support", "Running")
    cluster.patch("FineTuneJob", "support", {"spec": {"suspend": True}})
    cluster.until_phase("FineTuneJob", "support", "Suspended")
    cluster.patch("FineTuneJob", "support", {"spec": {"suspend": False}})
    stopping = cluster.until_phase("FineTuneJob", "support", "Pending")["status"]
    assert stopping["reason"] == "Stopping", "not before its pod has saved its state"
    stops(kubelet)
    attempt(cluster, "support", 2).ends(MESSAGES)
    final = cluster.until_phase("FineTuneJob", "support", "Succeeded")["status"]
    assert [(row["number"], row["outcome"]) for row in final["attempts"]] == [(1, "Suspended"), (2, "Succeeded")]
    assert not {"failures", "preemptions"} & set(final)


def hold(cluster: Cluster, held: bool) -> None:
    """What a queue does to a Job."""
    cluster.patch("Job", "support-tune-1", {"spec": {"suspend": held}})


def test_a_job_of_a_queue_starts_when_it_is_let_and_goes_on_in_the_same_attempt(cluster: Cluster) -> None:
    """The Job controller of a Job that may not fail counts no pod as failed that it took away itself."""
    tune(cluster, "support", queueName="gpus", retries=0)
    waits = cluster.until_phase("FineTuneJob", "support", "Queued")["status"]
    assert waits["waitingFor"] == "LocalQueue gpus to admit it"
    assert cluster.find("Pod") == []
    hold(cluster, False)
    first = attempt(cluster, "support", 1)
    first.runs("train")
    cluster.until_phase("FineTuneJob", "support", "Running")
    hold(cluster, True)
    cluster.until_phase("FineTuneJob", "support", "Queued")
    cluster.until("its pod is asked to stop", lambda: cluster.find("Pod")[0]["metadata"].get("deletionTimestamp"))
    hold(cluster, False)
    cluster.until_phase("FineTuneJob", "support", "Pending")
    assert len(cluster.find("Pod")) == 1, "the Job controller waits until the first has stopped"
    stops(first)

    def second() -> Any:
        return next((pod for pod in cluster.find("Pod") if pod["metadata"]["name"] != first.name), None)

    kubelet = Kubelet(cluster, cluster.until("another pod", second))
    kubelet.bind()
    kubelet.runs("train")
    cluster.until_phase("FineTuneJob", "support", "Running")
    kubelet.ends(MESSAGES)
    final = cluster.until_phase("FineTuneJob", "support", "Succeeded")["status"]
    assert [(row["number"], row["outcome"]) for row in final["attempts"]] == [(1, "Preempted"), (1, "Succeeded")]
    assert (final["attempt"], final["preemptions"]) == (1, 1)
    assert len(cluster.find("Job")) == 1
