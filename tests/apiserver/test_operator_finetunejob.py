"""FineTuneJobs on a real API server and Job controller; the test plays the kubelet."""

from __future__ import annotations

import json
import time

import pytest

from tests.apiserver.cluster import Cluster, Kubelet
from tests.apiserver.finetunejobs import ARTIFACTS, MESSAGES, started, succeed, tune
from tests.apiserver.operator_process import USER, OperatorProcess


@pytest.mark.usefixtures("operator")
def test_a_job_becomes_pods_and_its_termination_messages_become_status(cluster: Cluster) -> None:
    kubelet = started(cluster, "support")
    job = cluster.job("support-tune-1")
    [owner] = job["metadata"]["ownerReferences"]
    resource = cluster.until_phase("FineTuneJob", "support", "Pending")
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("FineTuneJob", resource["metadata"]["uid"], True)

    kubelet.runs("fetch")
    cluster.until_phase("FineTuneJob", "support", "Preparing")
    kubelet.runs("train")
    cluster.until_phase("FineTuneJob", "support", "Running")
    kubelet.ends(MESSAGES)
    status = cluster.until_phase("FineTuneJob", "support", "Succeeded")["status"]

    assert status["artifacts"] == ARTIFACTS
    assert status["rows"]["kept"] == 10
    assert status["metrics"]["steps"] == 30
    assert status["runUri"] == "s3://models/runs/x/y/z"
    assert status["completionTime"]
    cluster.kubectl(
        "wait", "--for=condition=Ready", "--timeout=5s", "--namespace", cluster.namespace, "finetunejob/support"
    )
    reasons = cluster.until(
        "three Events", lambda: found if len(found := cluster.events("FineTuneJob", "support")) >= 3 else None
    )
    assert len({event["reason"] for event in reasons}) == len(reasons) == 3


@pytest.mark.usefixtures("operator")
def test_deleting_a_job_removes_its_children_and_nothing_else(cluster: Cluster) -> None:
    for name in ("gone", "stays"):
        tune(cluster, name)
        cluster.pod_of(f"{name}-tune-1")
    cluster.create({"kind": "ConfigMap", "metadata": {"name": "gone"}, "data": {}})
    cluster.delete("FineTuneJob", "gone")
    cluster.until_gone("Job", "gone-tune-1")
    cluster.until("its pod is gone", lambda: len(cluster.find("Pod")) == 1)
    assert cluster.get("FineTuneJob", "stays")
    assert cluster.get("Job", "stays-tune-1")
    assert cluster.get("ConfigMap", "gone")


@pytest.mark.usefixtures("operator")
def test_a_job_of_somebody_else_with_the_same_name_is_not_touched(cluster: Cluster) -> None:
    container = {
        "name": "main",
        "image": "example.org/main",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True},
    }
    template = {
        "spec": {
            "restartPolicy": "Never",
            "containers": [container],
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        }
    }
    foreign = {"kind": "Job", "metadata": {"name": "support-tune-1"}, "spec": {"suspend": True, "template": template}}
    before = cluster.until("the foreign Job", lambda: cluster.create(foreign))
    time.sleep(1)
    before = cluster.job("support-tune-1")
    tune(cluster, "support")
    failed = cluster.until_phase("FineTuneJob", "support", "Failed")
    assert failed["status"]["lastFailure"]["class"] == "NameConflict"
    cluster.delete("FineTuneJob", "support")
    time.sleep(1)
    assert cluster.get("Job", "support-tune-1") == before


@pytest.mark.usefixtures("operator")
def test_a_second_look_writes_nothing(cluster: Cluster) -> None:
    started(cluster, "support").runs("train")
    cluster.until_phase("FineTuneJob", "support", "Running")
    time.sleep(1)
    before = cluster.writes(USER)
    labelled = cluster.patch("FineTuneJob", "support", {"metadata": {"labels": {"look": "again"}}})
    time.sleep(2)
    assert cluster.get("FineTuneJob", "support") == labelled
    assert cluster.writes(USER) == before


@pytest.mark.usefixtures("operator")
def test_the_owners_of_single_status_fields_take_no_room(cluster: Cluster) -> None:
    tune(cluster, "support")
    pending = cluster.until_phase("FineTuneJob", "support", "Pending")
    owners = [owner for owner in pending["metadata"]["managedFields"] if owner.get("subresource") == "status"]
    assert [(owner["manager"], owner["fieldsV1"]) for owner in owners] == [("tunesmith", {"f:status": {}})]


@pytest.mark.usefixtures("operator")
def test_a_good_life_costs_at_most_five_writes_and_three_events(cluster: Cluster) -> None:
    kubelet = started(cluster, "support")
    cluster.until_phase("FineTuneJob", "support", "Pending")
    for container, phase in (("fetch", "Preparing"), ("train", "Running")):
        kubelet.runs(container)
        cluster.until_phase("FineTuneJob", "support", phase)
    kubelet.ends(MESSAGES)
    cluster.until_phase("FineTuneJob", "support", "Succeeded")
    cluster.until("the last Event", lambda: len(cluster.events("FineTuneJob", "support")) >= 3)
    writes = cluster.writes(USER)
    events = [write for write in writes if "events/" in write]
    assert len(events) <= 3
    assert len(writes) - len(events) <= 5, writes


def test_references_resolve_whatever_comes_first(cluster: Cluster, operator: OperatorProcess) -> None:
    tune(cluster, "second", model={"fineTuneJob": {"name": "first"}})
    waiting = cluster.until_phase("FineTuneJob", "second", "Waiting")
    assert "first" in waiting["status"]["waitingFor"]
    succeed(cluster, "first")
    job = cluster.job("second-tune-1", seconds=10)
    run = json.loads(job["spec"]["template"]["metadata"]["annotations"]["tunesmith.dev/run"])
    assert run["models"]["base"]["uri"] == ARTIFACTS[1]["uri"]
    assert operator.metric("tunesmith_reconcile_total") > 0


def _unschedulable(kubelet: Kubelet) -> None:
    kubelet.unschedulable("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")


def _image_pull(kubelet: Kubelet) -> None:
    kubelet.waits("fetch", "ImagePullBackOff", 'Back-off pulling image "localhost/tunesmith-runtime:test"')


def _out_of_memory(kubelet: Kubelet) -> None:
    kubelet.ends(MESSAGES, {"train": {"exitCode": 137, "reason": "OOMKilled"}})


def _bad_row(kubelet: Kubelet) -> None:
    failure = {
        "class": "BadRow",
        "message": "s3://data/train.jsonl, line 17: no field messages",
        "logTail": "Traceback",
    }
    report = {"verb": "fetch", "outcome": "Failed", "failure": failure}
    kubelet.ends({}, {"fetch": {"exitCode": 65, "message": json.dumps(report)}})


def _crash(kubelet: Kubelet) -> None:
    kubelet.ends(MESSAGES, {"train": {"exitCode": 1, "message": "Traceback\nValueError: no"}})


FAILURES = {
    "Unschedulable": (_unschedulable, "nvidia.com/gpu"),
    "ImagePull": (_image_pull, "tunesmith-runtime:test"),
    "OOMKilled": (_out_of_memory, ""),
    "BadRow": (_bad_row, "line 17"),
    "ProcessError": (_crash, ""),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.usefixtures("operator")
def test_last_failure_tells_the_true_cause(cluster: Cluster, failure: str) -> None:
    happens, expected = FAILURES[failure]
    tune(cluster, "support")
    kubelet = Kubelet(cluster, cluster.pod_of("support-tune-1"))
    if failure != "Unschedulable":
        kubelet.bind()
    happens(kubelet)
    found = cluster.until(
        "lastFailure", lambda: ((cluster.get("FineTuneJob", "support") or {}).get("status") or {}).get("lastFailure")
    )
    assert found["class"] == failure
    assert expected in found["message"]
    assert found["hint"]
    assert found["pod"] == kubelet.name


@pytest.mark.usefixtures("operator")
def test_a_quota_that_forbids_the_pod_is_reported(cluster: Cluster) -> None:
    cluster.create({"kind": "ResourceQuota", "metadata": {"name": "no-pods"}, "spec": {"hard": {"pods": "0"}}})
    cluster.until(
        "the quota counts", lambda: (cluster.get("ResourceQuota", "no-pods") or {}).get("status", {}).get("hard")
    )
    tune(cluster, "support")
    found = cluster.until(
        "lastFailure", lambda: ((cluster.get("FineTuneJob", "support") or {}).get("status") or {}).get("lastFailure")
    )
    assert found["class"] == "QuotaExceeded"
    assert "no-pods" in found["message"]
