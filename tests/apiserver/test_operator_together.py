"""A FineTuneJob of several pods on a real API server and Job controller; the test plays their kubelets."""

from __future__ import annotations

import json

import pytest

from tests.apiserver.cluster import KINDS, Cluster, Kubelet, Raw
from tests.apiserver.finetunejobs import ARTIFACTS, MESSAGES, tune
from tunesmith_api.run import RUN_ANNOTATION

INDEX = "batch.kubernetes.io/job-completion-index"
DONE = {verb: json.dumps({"verb": verb, "outcome": "Succeeded"}) for verb in ("fetch", "train", "export")}
"""What a pod says at its end that does not lead."""
LOST: Raw = {
    "verb": "train",
    "outcome": "Failed",
    "failure": {"class": "CollectiveFailed", "message": "Connection reset by peer"},
}


def started(cluster: Cluster, job: str, count: int = 2) -> list[Kubelet]:
    """The pods of a Job by their index, bound to a node."""

    def all_there() -> list[Raw] | None:
        pods = cluster.find("Pod", f"batch.kubernetes.io/job-name={job}")
        return pods if len(pods) == count else None

    pods = cluster.until(f"{count} pods of Job {job}", all_there)
    kubelets = [Kubelet(cluster, pod) for pod in sorted(pods, key=lambda pod: int(pod["metadata"]["labels"][INDEX]))]
    for kubelet in kubelets:
        kubelet.bind()
    return kubelets


def training(cluster: Cluster) -> list[Kubelet]:
    """The two pods of a world that trains."""
    tune(cluster, "wide", parallelism={"nodes": 2})
    pods = started(cluster, "wide-tune-1")
    for kubelet in pods:
        kubelet.runs("train")
    return pods


def stopped(cluster: Cluster, kubelet: Kubelet) -> None:
    """The pod is asked to stop by the Job controller, and its kubelet lets it go."""
    path = KINDS["Pod"].path(cluster.namespace, kubelet.name)
    cluster.until("it is asked to stop", lambda: cluster.request("GET", path)["metadata"].get("deletionTimestamp"))
    kubelet.ends({}, {"train": {"exitCode": 86, "message": json.dumps(LOST)}})
    cluster.request("DELETE", path, {"gracePeriodSeconds": 0})


@pytest.mark.usefixtures("operator")
def test_two_pods_are_a_world_with_names_and_the_first_tells_the_result(cluster: Cluster) -> None:
    tune(cluster, "wide", parallelism={"nodes": 2, "near": {"topologyKey": "kubernetes.io/hostname"}})
    first, second = started(cluster, "wide-tune-1")
    assert cluster.job("wide-tune-1")["spec"]["completionMode"] == "Indexed"
    service = cluster.until("its Service", lambda: cluster.get("Service", "wide-tune-world"))
    assert (service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"]) == ("None", True)
    run = json.loads(first.pod["metadata"]["annotations"][RUN_ANNOTATION])
    for index, kubelet in enumerate((first, second)):
        spec = kubelet.pod["spec"]
        assert (spec["hostname"], spec["subdomain"]) == (f"wide-tune-1-{index}", "wide-tune-world")
        assert service["spec"]["selector"].items() <= kubelet.pod["metadata"]["labels"].items()
        [term] = spec["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
        wanted = term["podAffinityTerm"]["labelSelector"]["matchLabels"]
        assert wanted.items() <= kubelet.pod["metadata"]["labels"].items()
    assert run["world"]["host"] == f"{first.pod['spec']['hostname']}.{first.pod['spec']['subdomain']}"

    first.runs("train")
    second.runs("train")
    cluster.until_phase("FineTuneJob", "wide", "Running")
    second.ends(DONE)
    first.ends(MESSAGES)
    status = cluster.until_phase("FineTuneJob", "wide", "Succeeded")["status"]
    assert status["artifacts"] == ARTIFACTS
    assert status["children"] == [
        {"kind": "Job", "name": "wide-tune-1"},
        {"kind": "Service", "name": "wide-tune-world"},
    ]


@pytest.mark.usefixtures("operator")
def test_a_pod_that_hangs_when_the_result_is_there_is_stopped(cluster: Cluster) -> None:
    first, second = training(cluster)
    first.ends(MESSAGES)
    stopped(cluster, second)
    status = cluster.until_phase("FineTuneJob", "wide", "Succeeded")["status"]
    assert status["artifacts"] == ARTIFACTS
    ends = {
        condition["type"] for condition in cluster.until("the Job has ended", lambda: _ends(cluster.job("wide-tune-1")))
    }
    assert ends == {"SuccessCriteriaMet", "Complete"}


def _ends(job: Raw) -> list[Raw] | None:
    found = [condition for condition in job["status"].get("conditions", ()) if condition["status"] == "True"]
    return found if any(condition["type"] in ("Complete", "Failed") for condition in found) else None


@pytest.mark.usefixtures("operator")
def test_pod_0_has_a_name_from_the_moment_it_has_an_address(cluster: Cluster) -> None:
    """It trains in an init container, so it is never ready meanwhile."""
    tune(cluster, "wide", parallelism={"nodes": 2})
    first, _ = started(cluster, "wide-tune-1")
    first.runs("fetch")
    cluster.patch("Pod", first.name, {"status": {"podIP": "10.0.0.7", "podIPs": [{"ip": "10.0.0.7"}]}}, "status")
    slices = f"/apis/discovery.k8s.io/v1/namespaces/{cluster.namespace}/endpointslices"

    def named() -> Raw | None:
        found = [endpoint for each in cluster.request("GET", slices)["items"] for endpoint in each["endpoints"] or ()]
        return next((endpoint for endpoint in found if endpoint.get("hostname") == "wide-tune-1-0"), None)

    endpoint = cluster.until("its name", named)
    assert (endpoint["addresses"], endpoint["conditions"]["ready"]) == (["10.0.0.7"], True)


@pytest.mark.usefixtures("operator")
def test_a_failed_pod_ends_the_attempt_and_the_next_attempt_reports_its_cause(cluster: Cluster) -> None:
    first, second = training(cluster)
    second.ends(DONE, {"train": {"exitCode": 137, "reason": "OOMKilled"}})
    stopped(cluster, first)
    status = cluster.until(
        "the status reports the cause",
        lambda: found if (found := cluster.get("FineTuneJob", "wide")["status"]).get("lastFailure") else None,
    )
    assert status["lastFailure"]["class"] == "OOMKilled"
    assert status["lastFailure"]["pod"] == second.name

    first, second = started(cluster, "wide-tune-2")
    assert first.pod["spec"]["hostname"] == "wide-tune-2-0"
    second.ends(DONE)
    first.ends(MESSAGES)
    status = cluster.until_phase("FineTuneJob", "wide", "Succeeded")["status"]
    assert (status["attempt"], status["failures"]) == (2, 1)


@pytest.mark.usefixtures("operator")
def test_a_world_that_is_not_placed_says_so_and_frees_what_it_holds_in_time(cluster: Cluster) -> None:
    tune(cluster, "wide", parallelism={"nodes": 2}, pendingDeadline="20s")
    pods = cluster.until("two pods", lambda: found if len(found := cluster.find("Pod")) == 2 else None)
    first, second = (Kubelet(cluster, pod) for pod in pods)
    first.bind()
    first.runs("train")
    second.unschedulable("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")

    def held_back() -> bool:
        waiting = cluster.get("FineTuneJob", "wide")["status"].get("waitingFor") or ""
        return bool(waiting.startswith("1 of 2 pods are placed: no node has enough nvidia.com/gpu"))

    cluster.until("what the second pod waits for", held_back)
    status = cluster.until_phase("FineTuneJob", "wide", "Failed")["status"]
    assert status["reason"] == "DeadlineExceeded"
    cluster.until_gone("Job", "wide-tune-1")


@pytest.mark.usefixtures("operator")
def test_after_the_ttl_the_service_goes_too(cluster: Cluster) -> None:
    tune(cluster, "wide", parallelism={"nodes": 2}, ttlAfterFinished="1s")
    first, second = started(cluster, "wide-tune-1")
    second.ends(DONE)
    first.ends(MESSAGES)
    cluster.until_phase("FineTuneJob", "wide", "Succeeded")
    cluster.until_gone("Service", "wide-tune-world")
    cluster.until_gone("Job", "wide-tune-1")


def test_a_batch_that_the_devices_do_not_divide_is_refused_at_apply(cluster: Cluster) -> None:
    with pytest.raises(Exception, match=r"training\.globalBatchSize is a multiple of all devices"):
        tune(cluster, "odd", parallelism={"nodes": 3})
    with pytest.raises(Exception, match="near is for several pods"):
        tune(cluster, "near", parallelism={"near": {"topologyKey": "zone"}})
