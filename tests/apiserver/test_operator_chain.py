"""From tuning to serving on a real API server; the test plays the kubelet and the runtime."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.apiserver.chain import BASE_DIGEST, DIGEST, EVAL, SERVE, TUNE, evaluated
from tests.apiserver.cluster import Cluster, Kubelet, Raw
from tests.apiserver.finetunejobs import ARTIFACTS, MESSAGES, succeed

pytestmark = pytest.mark.usefixtures("operator")


@contextmanager
def node(cluster: Cluster, accuracy: float) -> Iterator[None]:
    """A node on which every pod does well at once; the tuned model scores `accuracy`, the baseline half of that."""
    stop, seen = threading.Event(), set()

    def run() -> None:
        while not stop.wait(0.2):
            for pod in cluster.find("Pod"):
                if pod["metadata"]["name"] not in seen:
                    seen.add(pod["metadata"]["name"])
                    play(Kubelet(cluster, pod))

    def play(kubelet: Kubelet) -> None:
        labels = kubelet.pod["metadata"]["labels"]
        match labels["tunesmith.dev/role"]:
            case "tune":
                kubelet.ends(MESSAGES)
            case "eval-model":
                kubelet.ends(evaluated(accuracy, DIGEST))
            case "eval-baseline":
                kubelet.ends(evaluated(accuracy / 2, BASE_DIGEST))
            case _:
                kubelet.ready()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    "order", list(itertools.permutations((TUNE, EVAL, SERVE)))[1::2], ids=lambda order: order[0]["kind"]
)
def test_a_chain_in_any_order_ends_in_a_service_of_what_passed(cluster: Cluster, order: tuple[Raw, ...]) -> None:
    with node(cluster, accuracy=0.9):
        for resource in order:
            cluster.create(resource)
            time.sleep(0.5)
        served = cluster.until_phase("InferenceService", "support", "Ready", seconds=60)["status"]
    evaluation = cluster.until_phase("EvalJob", "support", "Succeeded")["status"]
    assert evaluation["verdict"] == "Passed"
    assert evaluation["results"][0]["baseline"] == 0.45
    assert served["model"]["digest"] == DIGEST
    assert served["url"] == f"http://support.{cluster.namespace}.svc/v1"
    service = cluster.get("Service", "support")
    assert service is not None
    assert (service["spec"]["ports"][0]["port"], service["spec"]["ports"][0]["targetPort"]) == (80, 8000)


def test_a_verdict_failed_keeps_the_model_from_being_served(cluster: Cluster) -> None:
    with node(cluster, accuracy=0.5):
        for resource in (TUNE, EVAL, SERVE):
            cluster.create(resource)
        blocked = cluster.until_phase("InferenceService", "support", "Blocked", seconds=60)["status"]
    assert (cluster.get("EvalJob", "support") or {})["status"]["verdict"] == "Failed"
    assert "support" in blocked["message"]
    assert cluster.get("Deployment", "support") is None


@pytest.mark.parametrize("kind", ["Deployment", "Service"])
def test_an_object_of_somebody_else_with_the_services_name_is_not_touched(cluster: Cluster, kind: str) -> None:
    specs: dict[str, Raw] = {
        "Service": {"ports": [{"port": 1234}], "selector": {"app": "other"}},
        "Deployment": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "other"}},
            "template": {
                "metadata": {"labels": {"app": "other"}},
                "spec": {"containers": [{"name": "main", "image": "example.org/main"}]},
            },
        },
    }
    cluster.create({"kind": kind, "metadata": {"name": "support"}, "spec": specs[kind]})
    time.sleep(1)
    before = cluster.get(kind, "support")
    cluster.create({**SERVE, "spec": {"model": {"uri": "s3://models/base"}}})
    status = cluster.until_phase("InferenceService", "support", "Failed")["status"]
    assert status["lastFailure"]["class"] == "NameConflict"
    assert kind in status["message"]
    cluster.delete("InferenceService", "support")
    time.sleep(1)
    assert cluster.get(kind, "support") == before


def test_what_was_changed_by_hand_is_put_right_and_what_was_deleted_is_made_anew(cluster: Cluster) -> None:
    with node(cluster, accuracy=0.9):
        cluster.create({**SERVE, "spec": {"model": {"uri": "s3://models/base"}}})
        cluster.until_phase("InferenceService", "support", "Ready", seconds=60)
        cluster.patch("Deployment", "support", {"spec": {"replicas": 3}})
        cluster.until(
            "one replica again", lambda: (cluster.get("Deployment", "support") or {})["spec"]["replicas"] == 1
        )
        cluster.delete("Service", "support")
        cluster.until("the Service again", lambda: cluster.get("Service", "support"))
        cluster.delete("InferenceService", "support")
        for kind in ("Deployment", "Service"):
            cluster.until_gone(kind, "support")


def test_a_new_model_takes_over_when_its_job_has_finished(cluster: Cluster) -> None:
    with node(cluster, accuracy=0.9):
        cluster.create({**SERVE, "spec": {"model": {"uri": "s3://models/base"}}})
        first = cluster.until_phase("InferenceService", "support", "Ready", seconds=60)["status"]
        cluster.patch("InferenceService", "support", {"spec": {"model": {"uri": None, "fineTuneJob": {"name": "new"}}}})
        waiting = cluster.until_phase("InferenceService", "support", "RollingOut")["status"]
        assert waiting["version"] == first["version"]
        assert waiting["waitingFor"]
        succeed(cluster, "new")
        second = cluster.until_phase("InferenceService", "support", "Ready", seconds=60)["status"]
    assert second["model"]["uri"] == ARTIFACTS[1]["uri"]
    assert second["version"] != first["version"]


def test_every_member_of_a_ring_across_kinds_says_so_until_one_of_them_is_changed(cluster: Cluster) -> None:
    tune = {**TUNE, "spec": {**TUNE["spec"], "model": {"inferenceService": {"name": "support"}}}}
    serve = {**SERVE, "spec": {**SERVE["spec"], "model": {"uri": "s3://models/base"}}}
    members = ("FineTuneJob", "InferenceService", "EvalJob", "FineTuneJob")
    for resource in (serve, EVAL, tune):
        cluster.create(resource)
    for place, kind in enumerate(members[:-1]):
        around = [*members[place:-1], *members[: place + 1]]
        cycle = "a reference cycle: " + " -> ".join(f"{kind_name}/support" for kind_name in around)
        status = cluster.until_phase(kind, "support", "Failed")["status"]
        assert status["message"].startswith(f"{cycle}: ")
        assert {condition["type"]: condition["status"] for condition in status["conditions"]}["Stalled"] == "True"
    cluster.patch("InferenceService", "support", {"spec": {"promotion": None}})
    cluster.until_phase("InferenceService", "support", "Pending")
    for kind in ("EvalJob", "FineTuneJob"):

        def waits(kind: str = kind) -> bool:
            status = cluster.get(kind, "support")["status"]
            return status["phase"] == "Waiting" and "cycle" not in status["message"]

        cluster.until(f"the {kind} waits and knows of no cycle", waits)
