"""Rollouts of a service by the real Deployment controller: surge, recreate, roll-back, repair, suspension, upgrades."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from tests.apiserver.cluster import Cluster, Kubelet, Raw, Refused

pytestmark = pytest.mark.usefixtures("operator")

BAD = 666
"""maxModelLength of a version whose pods do not come up."""
SPEC: Raw = {"model": {"uri": "s3://models/base"}}


def length(pod: Raw) -> int | None:
    """maxModelLength, as the pod would read it."""
    found: int | None = json.loads(pod["metadata"]["annotations"]["tunesmith.dev/run"])["spec"].get("maxModelLength")
    return found


@contextmanager
def node(cluster: Cluster) -> Iterator[list[int]]:
    """A node on which every pod answers at once, but for those of a bad version. Gives the number of pods at each look."""
    stop, seen, counts = threading.Event(), set[str](), list[int]()

    def run() -> None:
        while not stop.wait(0.2):
            pods = cluster.find("Pod")
            counts.append(len(pods))
            for pod in (pod for pod in pods if pod["metadata"]["name"] not in seen):
                seen.add(pod["metadata"]["name"])
                play(Kubelet(cluster, pod))

    def play(kubelet: Kubelet) -> None:
        try:
            if length(kubelet.pod) == BAD:
                kubelet.waits("fetch", "ErrImagePull", "no such image")
            else:
                kubelet.ready()
        except Refused as error:
            if error.status != 404:  # it may be gone already
                raise

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield counts
    finally:
        stop.set()
        thread.join()


def serve(cluster: Cluster, **spec: Any) -> Raw:
    """A service that answers; there is a node."""
    cluster.create({"kind": "InferenceService", "metadata": {"name": "support"}, "spec": {**SPEC, **spec}})
    return cluster.until_phase("InferenceService", "support", "Ready")


def change(cluster: Cluster, **spec: Any) -> None:
    cluster.patch("InferenceService", "support", {"spec": spec})


def template(cluster: Cluster) -> Raw:
    found: Raw = (cluster.get("Deployment", "support") or {})["spec"]["template"]
    return found


def uids(cluster: Cluster) -> set[str]:
    """The pods that are there."""
    return {pod["metadata"]["uid"] for pod in cluster.find("Pod")}


def status(cluster: Cluster) -> Raw:
    return (cluster.get("InferenceService", "support") or {}).get("status") or {}


def conditions(cluster: Cluster) -> dict[str, Raw]:
    return {condition["type"]: condition for condition in status(cluster)["conditions"]}


def test_with_surge_the_old_version_answers_until_the_new_one_does(cluster: Cluster) -> None:
    with node(cluster):
        serve(cluster)
    [old] = cluster.find("Pod")
    change(cluster, maxModelLength=512)
    cluster.until("the new pod", lambda: len(cluster.find("Pod")) == 2)
    rolling = cluster.until_phase("InferenceService", "support", "RollingOut")["status"]
    assert (rolling["readyReplicas"], rolling["candidate"]["uri"]) == (1, "s3://models/base")
    assert conditions(cluster)["Ready"]["status"] == "True"
    assert old["metadata"]["uid"] in uids(cluster)
    with node(cluster):
        cluster.until_phase("InferenceService", "support", "Ready")
        cluster.until("the old pod is gone", lambda: old["metadata"]["uid"] not in uids(cluster))
    [new] = cluster.find("Pod")
    assert length(new) == 512


def test_with_recreate_there_is_never_a_second_set_of_pods(cluster: Cluster) -> None:
    with node(cluster) as counts:
        serve(cluster, rollout={"strategy": "Recreate"})
        before = uids(cluster)
        change(cluster, maxModelLength=512)
        cluster.until("another pod", lambda: (now := uids(cluster)) and not now & before)
        cluster.until_phase("InferenceService", "support", "Ready")
        cluster.until("the new version", lambda: "candidate" not in status(cluster))
    assert max(counts) == 1


@pytest.mark.parametrize("strategy", ["Surge", "Recreate"])
def test_a_version_that_does_not_come_up_gives_way_to_the_last_one_that_did(cluster: Cluster, strategy: str) -> None:
    rollout = {"strategy": strategy, "readyTimeout": "5s"}
    with node(cluster):
        good = serve(cluster, rollout=rollout)["status"]["version"]
        before, pods = template(cluster), uids(cluster)
        change(cluster, maxModelLength=BAD)
        cluster.until_phase("InferenceService", "support", "RolledBack")
        cluster.until("it is back", lambda: template(cluster) == before)
        cluster.until("it answers", lambda: "1 of 1 pods are ready" in status(cluster)["message"])
        final = status(cluster)
        if strategy == "Surge":
            cluster.until("only what answered is there, not touched", lambda: uids(cluster) == pods)
        assert final["version"] == good
        assert final["lastFailure"]["class"] == "ImagePull"
        assert "no such image" in final["message"]
        assert {name: condition["status"] for name, condition in conditions(cluster).items()}.items() >= {
            ("Ready", "True"), ("Stalled", "True"), ("RolledBack", "True")
        }  # fmt: skip
        events = [event["reason"] for event in cluster.events("InferenceService", "support")]
        assert events.count("RolledBack") == 1

        sets = len(cluster.find("ReplicaSet"))
        change(cluster, replicas=2)
        cluster.until("two pods are ready", lambda: "2 of 2 pods are ready" in status(cluster)["message"])
        assert len(cluster.find("ReplicaSet")) == sets, "what failed is not tried again"
        change(cluster, maxModelLength=256)
        cluster.until_phase("InferenceService", "support", "Ready")
        assert length(cluster.find("Pod")[0]) == 256
    [revision] = cluster.until(
        "one record", lambda: found if len(found := cluster.find("ControllerRevision")) == 1 else None
    )
    assert revision["metadata"]["name"] == f"support-{status(cluster)['version']}"


def test_the_first_version_has_nothing_to_go_back_to_and_says_so(cluster: Cluster) -> None:
    with node(cluster):
        spec = {**SPEC, "maxModelLength": BAD, "rollout": {"readyTimeout": "3s"}}
        cluster.create({"kind": "InferenceService", "metadata": {"name": "support"}, "spec": spec})
        late = cluster.until("it is late", lambda: (now := status(cluster)).get("reason") == "RolloutTimeout" and now)
    assert "No other version was ready before" in late["message"]
    assert "no such image" in late["message"]


def test_what_served_comes_back_though_its_deployment_is_deleted_while_a_model_is_awaited(cluster: Cluster) -> None:
    with node(cluster):
        served = serve(cluster)["status"]["version"]
        before = template(cluster)
        change(cluster, model={"uri": None, "fineTuneJob": {"name": "to-come"}})
        cluster.until_phase("InferenceService", "support", "RollingOut")
        cluster.delete("Deployment", "support")
        cluster.until(
            "it is back",
            lambda: (cluster.get("Deployment", "support") or {}).get("status", {}).get("readyReplicas"),
        )
        assert template(cluster) == before
        assert status(cluster)["version"] == served


def test_what_is_edited_or_deleted_by_hand_is_put_right_and_no_pod_restarts(cluster: Cluster) -> None:
    edits: dict[str, Raw] = {
        "Service": {"ports": [{"name": "http", "port": 81, "targetPort": 8000, "protocol": "TCP"}]},
        "PodDisruptionBudget": {"maxUnavailable": 2},
        "HorizontalPodAutoscaler": {"maxReplicas": 9},
        "Deployment": {"progressDeadlineSeconds": 1},
    }
    with node(cluster):
        serve(cluster, replicas=2, autoscaling={"maxReplicas": 3})
        pods = uids(cluster)
        for kind, edit in edits.items():
            before = spec_of(cluster, kind)
            cluster.patch(kind, "support", {"spec": edit})
            until_spec(cluster, kind, before)
            if kind != "Deployment":
                cluster.delete(kind, "support")
                cluster.until(f"{kind} again", partial(cluster.get, kind, "support"))
        assert uids(cluster) == pods
        assert status(cluster)["message"].startswith("2 of 2 pods are ready")


def spec_of(cluster: Cluster, kind: str) -> Raw:
    return (cluster.get(kind, "support") or {}).get("spec") or {}


def until_spec(cluster: Cluster, kind: str, spec: Raw) -> None:
    cluster.until(f"{kind} as it was", lambda: spec_of(cluster, kind) == spec)


def test_suspended_it_has_no_pods_and_keeps_its_service(cluster: Cluster) -> None:
    with node(cluster):
        before = serve(cluster, replicas=2, autoscaling={"maxReplicas": 3})["status"]["version"]
        change(cluster, suspend=True)
        cluster.until("no pods", lambda: not cluster.find("Pod"))
        cluster.until("it says so", lambda: "no pods" in status(cluster)["message"])
        assert status(cluster)["replicas"] == 0
        assert cluster.get("Service", "support")
        for kind in ("HorizontalPodAutoscaler", "PodDisruptionBudget"):
            assert cluster.get(kind, "support") is None
        change(cluster, suspend=False)
        after = cluster.until_phase("InferenceService", "support", "Ready")["status"]
        assert after["version"] == before
        assert cluster.get("HorizontalPodAutoscaler", "support")


def test_a_drain_takes_one_pod_at_a_time(cluster: Cluster) -> None:
    with node(cluster):
        serve(cluster, replicas=2)
        cluster.until(
            "one may go",
            lambda: (cluster.get("PodDisruptionBudget", "support") or {})["status"].get("disruptionsAllowed"),
        )
    first, second = cluster.find("Pod")
    evict(cluster, first)
    with pytest.raises(Refused) as refusal:
        evict(cluster, second)
    assert refusal.value.status == 429
    change(cluster, replicas=1)
    cluster.until("none for a single pod", lambda: cluster.get("PodDisruptionBudget", "support") is None)


def evict(cluster: Cluster, pod: Raw) -> None:
    name = pod["metadata"]["name"]
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": cluster.namespace}}
    cluster.request("POST", f"/api/v1/namespaces/{cluster.namespace}/pods/{name}/eviction", body)
