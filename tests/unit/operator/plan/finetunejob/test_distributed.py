"""Several pods that train as one process group."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.unit.operator.plan.world import (
    CONFIG,
    START,
    TUNED,
    Cluster,
    condition,
    ended,
    failed_report,
    fine_tune_job,
    report,
    running,
)
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.hashing import spec_hash
from tunesmith_api.run import World
from tunesmith_operator.plan import KINDS
from tunesmith_operator.plan.pods.template import run_spec_of
from tunesmith_operator.plan.times import format_time
from tunesmith_operator.plan.types import Key, Raw

JOB, SERVICE = "support-tune-1", "support-tune-world"
FETCHED = {"fetch": TUNED["fetch"]}
TRAINS = {**FETCHED, "train": running()}
DONE = {
    "fetch": TUNED["fetch"],
    "train": ended(message=report("train")),
    "export": ended(message=report("export")),
}
"""States of the containers of a pod other than pod 0 after success."""


def begun(nodes: int = 2, **spec: Any) -> Cluster:
    """A FineTuneJob of several pods, whose Job and Service have been made."""
    cluster = Cluster(fine_tune_job(**{"parallelism": {"nodes": nodes}, **spec}))
    cluster.begin()
    return cluster


def template(cluster: Cluster, job: str = JOB) -> Raw:
    made: Raw = cluster.jobs[job]["spec"]["template"]
    return made


def lost(after: int = 0) -> Raw:
    """A container that lost its peers, `after` seconds later than usual."""
    state = ended(86, failed_report("train", "CollectiveFailed", "Connection reset by peer"))
    state["terminated"]["finishedAt"] = format_time(START + timedelta(minutes=5, seconds=after))
    return state


def test_several_pods_are_an_indexed_job_that_ends_with_the_first_failure_or_the_success_of_pod_0():
    spec = begun(nodes=4).jobs[JOB]["spec"]
    assert {name: value for name, value in spec.items() if name != "template"} == {
        "backoffLimit": 0,
        "completionMode": "Indexed",
        "completions": 4,
        "parallelism": 4,
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]},
    }


def test_a_queue_holds_all_pods_of_a_job_and_admits_them_together():
    spec = begun(queueName="gpus").jobs[JOB]["spec"]
    assert (spec["suspend"], spec["completions"], spec["parallelism"]) == (True, 2, 2)


def test_pods_of_a_readmitted_job_replace_those_that_stop():
    cluster = begun(queueName="gpus")
    cluster.jobs[JOB]["spec"]["suspend"] = False
    cluster.jobs[JOB]["status"] = {"startTime": format_time(START), "conditions": [condition("Suspended", False)]}
    for index in (0, 1):
        old = cluster.start_pod(JOB, "Running", TRAINS, index=index)
        old["metadata"]["deletionTimestamp"] = format_time(cluster.now + timedelta(seconds=120))
        cluster.pods[f"{JOB}-{index}-old"] = {**old, "metadata": {**old["metadata"], "name": f"{JOB}-{index}-old"}}
    cluster.settle()
    assert cluster.status["phase"] == "Pending"
    for index in (0, 1):
        cluster.start_pod(JOB, "Running", TRAINS, index=index)
    cluster.settle()
    assert cluster.status["phase"] == "Running"


def test_one_pod_is_a_plain_job_without_a_service():
    cluster = begun(nodes=1)
    assert "completionMode" not in cluster.jobs[JOB]["spec"]
    assert cluster.services == {}
    assert run_spec_of(template(cluster)).world is None  # type: ignore[union-attr]
    assert not {"subdomain", "affinity"} & set(template(cluster)["spec"])


def test_pods_find_pod_0_by_the_name_that_the_service_gives_it():
    cluster = begun(nodes=4)
    run = run_spec_of(template(cluster))
    assert run
    assert run.world == World(nodes=4, processes=1, host=f"{JOB}-0.{SERVICE}")
    assert template(cluster)["spec"]["subdomain"] == SERVICE
    service = cluster.services[SERVICE]["spec"]
    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)
    assert service["selector"].items() <= template(cluster)["metadata"]["labels"].items()
    assert {"kind": "Service", "name": SERVICE} in cluster.status["children"]


def test_the_chart_sets_how_long_pods_wait_for_each_other():
    patience = CONFIG.together.model_copy(update={"rendezvous_seconds": 60.0, "collective_seconds": 7200.0})
    cluster = Cluster(fine_tune_job(parallelism={"nodes": 2}), config=CONFIG.model_copy(update={"together": patience}))
    cluster.settle()
    run = run_spec_of(template(cluster))
    assert run
    assert run.world
    assert (run.world.rendezvous_seconds, run.world.unreachable_seconds, run.world.collective_seconds) == (
        60,
        300,
        7200,
    )


@pytest.mark.parametrize("container", ["fetch", "train", "export"])
def test_each_pod_gets_its_index_in_a_variable_that_users_cannot_set(container):
    cluster = begun(pod={"env": [{"name": "TUNESMITH_INDEX", "value": "0"}]})
    spec = template(cluster)["spec"]
    made = next(found for found in [*spec["initContainers"], *spec["containers"]] if found["name"] == container)
    (place,) = [manifest for manifest in made["env"] if manifest["name"] == "TUNESMITH_INDEX"]
    assert place["valueFrom"]["fieldRef"]["fieldPath"] == (
        "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    )


def test_each_device_of_a_pod_is_a_process():
    gpus = {"accelerator": "nvidia", "count": 8}
    run = run_spec_of(template(begun(nodes=2, resources=gpus)))
    assert run
    assert run.world
    assert (run.world.nodes, run.world.processes, run.world.size) == (2, 8, 16)
    alone = begun(nodes=1, resources=gpus)
    run = run_spec_of(template(alone))
    assert run
    assert run.world == World(nodes=1, processes=8, host="127.0.0.1")
    assert "completionMode" not in alone.jobs[JOB]["spec"]
    assert alone.services == {}


@pytest.mark.parametrize(
    ("spec", "size"),
    [
        ({}, None),
        ({"resources": {"sharedMemory": "2Gi"}}, "2Gi"),
        ({"resources": {"accelerator": "nvidia", "count": 1}}, None),
        ({"resources": {"accelerator": "nvidia", "count": 8}}, "8Gi"),
        ({"parallelism": {"nodes": 2}}, "1Gi"),
        ({"parallelism": {"nodes": 2}, "resources": {"accelerator": "ascend", "count": 4}}, "4Gi"),
        ({"parallelism": {"nodes": 2}, "resources": {"sharedMemory": "16Gi"}}, "16Gi"),
    ],
)
def test_processes_of_a_group_have_a_gib_of_shared_memory_for_each_device(spec, size):
    cluster = begun(**{"nodes": 1, **spec})
    volumes = {volume["name"]: volume for volume in template(cluster)["spec"]["volumes"]}
    assert volumes.get("shm", {}).get("emptyDir") == ({"medium": "Memory", "sizeLimit": size} if size else None)
    mounts = {container["mountPath"] for container in template(cluster)["spec"]["initContainers"][1]["volumeMounts"]}
    assert ("/dev/shm" in mounts) == bool(size)


@pytest.mark.parametrize("required", [False, True])
def test_pods_are_kept_near_each_other_when_asked(required):
    near = {"topologyKey": "topology.kubernetes.io/zone", "required": required}
    affinity = template(begun(parallelism={"nodes": 2, "near": near}))["spec"]["affinity"]["podAffinity"]
    term = {
        "labelSelector": {"matchLabels": {"batch.kubernetes.io/job-name": JOB}},
        "topologyKey": "topology.kubernetes.io/zone",
    }
    assert affinity == (
        {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
        if required
        else {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}
    )


def test_placement_does_not_change_the_spec_hash():
    apart = FineTuneJobSpec.model_validate(fine_tune_job(parallelism={"nodes": 2})["spec"]).to_dict()
    near = {**apart, "parallelism": {**apart["parallelism"], "near": {"topologyKey": "rack", "required": True}}}
    wide = {**apart, "parallelism": {**apart["parallelism"], "nodes": 4}}
    assert spec_hash("FineTuneJob", near) == spec_hash("FineTuneJob", apart)
    assert spec_hash("FineTuneJob", wide) != spec_hash("FineTuneJob", apart)


def test_it_is_pending_until_every_pod_has_started_and_preparing_until_every_pod_has_fetched():
    cluster = begun()
    cluster.start_pod(JOB, "Running", TRAINS, index=0)
    cluster.settle()
    assert cluster.status["phase"] == "Pending"
    assert cluster.status["startTime"], "devices are held from here on"
    cluster.start_pod(JOB, "Pending", {"fetch": running()}, index=1)
    cluster.settle()
    assert cluster.status["phase"] == "Preparing"
    cluster.start_pod(JOB, "Running", TRAINS, index=1)
    cluster.settle()
    assert cluster.status["phase"] == "Running"


def test_status_shows_how_many_pods_are_placed_and_what_the_others_lack():
    cluster = begun(nodes=3, resources={"accelerator": "nvidia"}, training={"globalBatchSize": 12})
    cluster.start_pod(JOB, "Running", TRAINS, index=0)
    lack = condition("PodScheduled", False, "Unschedulable", "0/2 nodes are available: 2 Insufficient nvidia.com/gpu.")
    for index in (1, 2):
        del cluster.start_pod(JOB, index=index, conditions=[lack])["status"]["startTime"]
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Pending", "Unschedulable")
    assert cluster.status["waitingFor"].startswith("1 of 3 pods are placed: no node has enough nvidia.com/gpu")


def test_a_pod_that_the_quota_does_not_admit_is_reported_although_others_run():
    cluster = begun()
    cluster.start_pod(JOB, "Running", TRAINS, index=0)
    cluster.jobs[JOB]["status"] = {"startTime": format_time(START), "active": 1}
    wanted = KINDS["FineTuneJob"].wants_events(cluster.resource, cluster.observed(), cluster.now)
    assert Key("Job", JOB) in wanted
    message = f'Error creating: pods "{JOB}-1" is forbidden: exceeded quota: gpus'
    about = {"kind": "Job", "name": JOB, "uid": f"uid-of-{JOB}"}
    cluster.kubernetes_events = [{"reason": "FailedCreate", "message": message, "involvedObject": about}]
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Pending", "QuotaExceeded")
    assert cluster.status["waitingFor"].startswith("1 of 2 pods are placed: ")


def test_the_pending_deadline_frees_the_devices_of_placed_pods():
    cluster = begun(pendingDeadline="10m")
    cluster.start_pod(JOB, "Running", TRAINS, index=0)
    cluster.settle()
    cluster.reconcile(after=600)
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Failed", "DeadlineExceeded")
    assert cluster.jobs == {}


def test_pod_0_reports_for_all():
    cluster = begun()
    cluster.start_pod(JOB, "Succeeded", DONE, index=1)
    cluster.start_pod(JOB, "Running", TRAINS, index=0)
    cluster.settle()
    assert cluster.status["phase"] == "Running", "that another is done is not the end"
    cluster.start_pod(JOB, "Succeeded", TUNED, index=0)
    cluster.end_job(JOB, "Complete", "CompletionsReached")
    cluster.settle()
    assert cluster.status["phase"] == "Succeeded"
    assert [artifact["name"] for artifact in cluster.status["artifacts"]] == ["adapter", "merged"]


def test_a_pod_that_succeeded_is_not_the_cause_of_a_failure():
    cluster = begun(retries=0)
    cluster.start_pod(JOB, "Succeeded", DONE, index=1)
    merge = failed_report("export", "MergeMismatch", "logits differ")
    cluster.start_pod(JOB, "Failed", {**DONE, "export": ended(82, merge)}, index=0)
    cluster.end_job(JOB, "Failed")
    cluster.settle()
    assert cluster.status["lastFailure"]["class"] == "MergeMismatch"


@pytest.mark.parametrize(
    ("cause", "class_"),
    [
        ({"states": {**FETCHED, "train": ended(137, reason="OOMKilled")}}, "OOMKilled"),
        ({"states": {"fetch": ended(65, failed_report("fetch", "BadRow", "line 3"))}}, "BadRow"),
        ({"states": {**FETCHED, "train": ended(139)}}, "ProcessError"),
        ({"states": {**FETCHED, "train": ended(75, report("train", "Preempted"))}}, "Preempted"),
        (
            {
                "states": {**FETCHED, "train": ended(137)},
                "conditions": [condition("DisruptionTarget", True, "DeletionByTaintManager", "node is gone")],
            },
            "NodeLost",
        ),
    ],
)
@pytest.mark.parametrize("where", [0, 1])
def test_the_root_cause_is_reported_and_not_the_loss_of_the_pod_by_others(cause, class_, where):
    cluster = begun(nodes=4)
    for index in set(range(4)) - {where}:
        cluster.start_pod(JOB, "Failed", {**FETCHED, "train": lost(after=-1)}, index=index)
    cluster.start_pod(JOB, "Failed", index=where, **cause)
    cluster.end_job(JOB, "Failed")
    cluster.settle()
    failure = cluster.status["lastFailure"]
    assert (failure["class"], failure["pod"]) == (class_, f"{JOB}-{where}-x7k2p")


def test_the_earlier_of_two_causes_is_reported():
    cluster = begun()
    late = ended(1)
    late["terminated"]["finishedAt"] = format_time(START + timedelta(minutes=6))
    cluster.start_pod(JOB, "Failed", {**FETCHED, "train": late}, index=0)
    cluster.start_pod(JOB, "Failed", {**FETCHED, "train": ended(75, report("train", "Preempted"))}, index=1)
    cluster.end_job(JOB, "Failed")
    cluster.settle()
    assert cluster.status["lastFailure"]["pod"] == f"{JOB}-1-x7k2p"


def test_a_lost_peer_is_reported_if_nothing_else_is_known():
    cluster = begun()
    cluster.start_pod(JOB, "Failed", {**FETCHED, "train": lost()}, index=0)
    cluster.end_job(JOB, "Failed")
    cluster.settle()
    assert cluster.status["lastFailure"]["class"] == "CollectiveFailed"


def test_an_attempt_has_not_failed_while_other_pods_stop():
    cluster = begun()
    cluster.start_pod(JOB, "Failed", {**FETCHED, "train": ended(1)}, index=1)
    stopping = cluster.start_pod(JOB, "Running", TRAINS, index=0)
    stopping["metadata"]["deletionTimestamp"] = format_time(cluster.now + timedelta(seconds=120))
    cluster.end_job(JOB, "FailureTarget")
    cluster.settle()
    assert list(cluster.jobs) == [JOB]
    del cluster.pods[f"{JOB}-0-x7k2p"]
    cluster.end_job(JOB, "Failed")
    cluster.settle()
    assert cluster.status["lastFailure"]["class"] == "ProcessError"
    cluster.reconcile(after=10)
    assert list(cluster.jobs) == [JOB, "support-tune-2"]


def test_a_success_without_pod_0_is_decided_when_the_other_pods_have_stopped():
    cluster = begun(pendingDeadline="30m")
    cluster.start_pod(JOB, "Running", TRAINS, index=1)
    cluster.end_job(JOB, "SuccessCriteriaMet", "SuccessPolicy")
    cluster.reconcile(after=3600)
    assert cluster.status["phase"] == "Running"
    cluster.pods.clear()
    cluster.reconcile()
    assert cluster.status["lastFailure"]["class"] == "Preempted"
    assert "was deleted before its result was read" in cluster.status["lastFailure"]["message"]


def test_the_next_attempt_is_a_new_process_group_with_new_names():
    cluster = begun()
    cluster.start_pod(JOB, "Failed", {**FETCHED, "train": ended(75, report("train", "Preempted"))}, index=0)
    cluster.end_job(JOB, "Failed")
    cluster.settle()
    cluster.reconcile(after=60)
    run = run_spec_of(template(cluster, "support-tune-2"))
    assert run
    assert run.world
    assert run.world.host == f"support-tune-2-0.{SERVICE}"
    assert list(cluster.services) == [SERVICE]


def test_a_changed_or_deleted_service_is_repaired():
    cluster = begun()
    cluster.start_pod(JOB, "Running", TRAINS, index=0)
    cluster.settle()
    cluster.services[SERVICE]["spec"]["publishNotReadyAddresses"] = False
    cluster.settle()
    assert cluster.services[SERVICE]["spec"]["publishNotReadyAddresses"] is True
    cluster.services.clear()
    cluster.settle()
    assert list(cluster.services) == [SERVICE]


def test_the_service_is_deleted_with_the_jobs_after_the_ttl():
    cluster = begun(ttlAfterFinished="1h")
    cluster.start_pod(JOB, "Succeeded", TUNED, index=0)
    cluster.start_pod(JOB, "Succeeded", DONE, index=1)
    cluster.end_job(JOB, "Complete", "CompletionsReached")
    cluster.settle()
    plan = cluster.reconcile(after=3600)
    assert set(plan.delete) == {Key("Job", JOB), Key("Service", SERVICE)}
    cluster.services.clear()
    cluster.settle()
    assert cluster.status["children"] == []


def test_a_foreign_service_with_the_name_is_left_alone():
    cluster = Cluster(fine_tune_job(parallelism={"nodes": 2}))
    cluster.foreign.add(Key("Service", SERVICE))
    cluster.settle()
    assert (cluster.jobs, cluster.services) == ({}, {})
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Failed", "NameConflict")


def test_a_rejected_service_is_reported_and_retried():
    cluster = Cluster(fine_tune_job(parallelism={"nodes": 2}))
    cluster.refused[Key("Service", SERVICE)] = 'services "x" is forbidden: exceeded quota: services=0'
    cluster.settle()
    assert cluster.services == {}
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Pending", "QuotaExceeded")
    assert cluster.plans[-1].requeue_after == pytest.approx(30)
    cluster.refused.clear()
    cluster.settle()
    assert list(cluster.services) == [SERVICE]


def test_the_service_is_read_by_name_only_for_several_pods():
    gets = KINDS["FineTuneJob"].gets
    assert gets(fine_tune_job()) == frozenset()
    assert gets(fine_tune_job(parallelism={"nodes": 2})) == {Key("Service", SERVICE)}


@pytest.mark.parametrize(
    ("spec", "advice"),
    [
        ({"parallelism": {"nodes": 3}}, "16 is not a multiple of the 3 devices"),
        ({"resources": {"accelerator": "nvidia", "count": 6}}, "Hint: set spec.training.globalBatchSize to 12 or 18"),
        ({"parallelism": {"nodes": 32}}, "Hint: set spec.training.globalBatchSize to 32"),
        (
            {"parallelism": {"nodes": 12, "tensorParallel": 2}},
            "16 is not a multiple of the 6 groups of devices",
        ),
        (
            {"parallelism": {"nodes": 4, "tensorParallel": 8}},
            "parallelism.tensorParallel 8 does not divide the 4 devices",
        ),
        (
            {"parallelism": {"nodes": 4, "pipelineParallel": 8}},
            "parallelism.pipelineParallel 8 does not divide the 4 devices",
        ),
    ],
)
def test_a_batch_that_the_devices_do_not_divide_is_refused_with_the_nearest_sizes(spec, advice):
    cluster = Cluster(fine_tune_job(**spec))
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Failed", "BadSpec")
    assert advice in cluster.status["message"]
    assert cluster.jobs == {}
