"""Restarts, several replicas, an unreachable API server, a single namespace, progress."""

from __future__ import annotations

import json
import time
from pathlib import Path

from devcluster.standalone import ControlPlane
from tests.apiserver.chart import NAMESPACE, VALUES, render, without_workloads
from tests.apiserver.cluster import Cluster, Kubelet
from tests.apiserver.conftest import StartOperator
from tests.apiserver.finetunejobs import started, succeed, tune
from tests.apiserver.operator_process import USER
from tests.apiserver.proxy import Proxy
from tests.apiserver.survival import replica

REPORT = {"stage": "train", "step": 3, "totalSteps": 30, "epoch": 0.1, "loss": 2.5, "tokensPerSecond": 900.0}


def token_of(kubelet: Kubelet) -> str:
    """The progress token in the environment of a pod."""
    variables = {
        variable["name"]: variable.get("value", "")
        for container in kubelet.pod["spec"]["initContainers"]
        for variable in container["env"]
    }
    return variables["TUNESMITH_PROGRESS_TOKEN"]


def test_a_restart_writes_nothing_and_does_not_look_at_what_is_finished(
    cluster: Cluster, start_operator: StartOperator
) -> None:
    first = start_operator("operator-0")
    succeed(cluster, "done")
    started(cluster, "running").runs("train")
    cluster.until_phase("FineTuneJob", "running", "Running")
    assert first.stop() == 0

    writes, looks = cluster.writes(USER), cluster.requests(USER, "get")
    second = start_operator("operator-1")
    cluster.until("it leads", second.leads)
    running = "get finetunejobs/running"
    cluster.until("it has looked", lambda: cluster.requests(USER, "get").count(running) > looks.count(running))
    time.sleep(2)
    assert cluster.writes(USER) == writes
    finished = "get finetunejobs/done"
    assert cluster.requests(USER, "get").count(finished) == looks.count(finished)


def test_a_leader_that_stops_hands_over_at_once(cluster: Cluster, start_operator: StartOperator) -> None:
    slow = {"leaseSeconds": 60, "renewSeconds": 40, "retrySeconds": 0.5}
    leader = start_operator("operator-0", leaderElection=slow)
    cluster.until("it leads", leader.leads)
    standby = start_operator("operator-1", leaderElection=slow)
    assert leader.stop() == 0
    cluster.until("the other leads", standby.leads, seconds=15)


def test_an_api_server_that_goes_away_costs_nothing_but_time(
    plane: ControlPlane, cluster: Cluster, start_operator: StartOperator
) -> None:
    operator = start_operator(leaderElection={"leaseSeconds": 60, "renewSeconds": 50, "retrySeconds": 0.5})
    kubelet = started(cluster, "support")
    cluster.until_phase("FineTuneJob", "support", "Pending")
    operator.may_complain = True
    plane.stop_component("kube-apiserver")
    time.sleep(5)
    assert operator.probe("/livez")[0] == 200
    plane.start_component("kube-apiserver")
    kubelet.runs("train")
    cluster.until_phase("FineTuneJob", "support", "Running", seconds=60)
    assert operator.process.poll() is None
    assert [job["metadata"]["name"] for job in cluster.find("Job")] == ["support-tune-1"]


def test_a_token_that_is_refused_is_read_anew_by_requests_and_by_streams(
    plane: ControlPlane, cluster: Cluster, tmp_path: Path
) -> None:
    patient = {"leaseSeconds": 60, "renewSeconds": 50, "retrySeconds": 0.5}
    with Proxy(plane) as proxy, replica(plane, tmp_path, "operator-0", proxy.url, leaderElection=patient) as operator:
        cluster.until("it leads", operator.leads)
        account = ("--namespace", NAMESPACE, "serviceaccount", "tunesmith-operator")
        cluster.kubectl("delete", *account)
        cluster.kubectl("create", *account)  # another uid: the token in use is good no more
        cluster.until("requests are refused", lambda: 'code="401"' in operator.probe("/metrics")[1])
        operator.write_credentials()
        proxy.cut_streams()  # one that is open was let in by the old token, and stays
        tune(cluster, "support")
        cluster.job("support-tune-1")
        assert operator.process.poll() is None


def test_with_roles_in_one_namespace_only_it_works_there_and_touches_no_other(
    plane: ControlPlane, cluster: Cluster, start_operator: StartOperator
) -> None:
    values = {**VALUES, "scope": {"namespaces": [cluster.namespace]}, "crds": {"enabled": False}}
    manifests = render(plane, values, "scoped")
    assert not [manifest for manifest in manifests if manifest["kind"].startswith("Cluster")]
    cluster.kubectl("apply", "--filename", "-", stdin=without_workloads(manifests))
    operator = start_operator(release="scoped", scope=values["scope"])
    elsewhere = Cluster(cluster.plane, cluster.http, "default")
    tune(elsewhere, "elsewhere")
    try:
        succeed(cluster, "here")
        assert (elsewhere.get("FineTuneJob", "elsewhere") or {})["status"] == {"observedGeneration": -1}
        assert operator.process.poll() is None
    finally:
        elsewhere.delete("FineTuneJob", "elsewhere")


def test_progress_counts_with_the_token_of_the_job_only(cluster: Cluster, start_operator: StartOperator) -> None:
    operator = start_operator()
    kubelet = started(cluster, "support")
    kubelet.runs("train")
    cluster.until_phase("FineTuneJob", "support", "Running")
    assert operator.push("not-a-token", REPORT) == 401
    assert operator.push(token_of(kubelet), REPORT) == 204
    found = cluster.until(
        "progress", lambda: (cluster.get("FineTuneJob", "support") or {}).get("status", {}).get("progress")
    )
    assert (found["step"], found["totalSteps"], found["percent"], found["loss"]) == (3, 30, 10, 2.5)
    assert operator.push(token_of(kubelet), REPORT) in (204, 429)


def test_a_token_outlives_the_operator_that_made_it_and_a_standby_hands_reports_on(
    cluster: Cluster, start_operator: StartOperator
) -> None:
    first = start_operator("operator-0")
    kubelet = started(cluster, "support")
    kubelet.runs("train")
    cluster.until_phase("FineTuneJob", "support", "Running")
    first.stop()
    leader = start_operator("operator-1")
    cluster.until("it leads", leader.leads)
    standby = start_operator("operator-2")
    cluster.until("the leader takes it from the standby", lambda: standby.push(token_of(kubelet), REPORT) == 204)
    cluster.until("progress", lambda: (cluster.get("FineTuneJob", "support") or {}).get("status", {}).get("progress"))
    assert json.dumps(leader.log()).count(token_of(kubelet)) == 0
