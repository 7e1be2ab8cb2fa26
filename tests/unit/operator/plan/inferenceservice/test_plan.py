from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.operator.plan.world import (
    CONFIG,
    Cluster,
    condition,
    ended,
    eval_job,
    failed_report,
    inference_service,
    report,
    running,
    tuned,
    waiting,
    with_spec,
)
from tunesmith_operator.plan.times import format_time
from tunesmith_operator.plan.types import EventType, Key, Raw, Reference

TUNED_MODEL = {"fineTuneJob": {"name": "support"}}
GATED = {"model": TUNED_MODEL, "promotion": {"evalJobs": [{"name": "check"}]}}


def evaluated(verdict: str | None, digest: str = "d2", model: Raw | None = None, uri: str = "s3://m") -> Raw:
    """An EvalJob with its verdict."""
    job = eval_job("check", model=model or TUNED_MODEL)
    gate = {"benchmark": "qa", "metric": "accuracy", "passed": verdict == "Passed"}
    status = {
        "phase": "Succeeded" if verdict else "Running",
        "verdict": verdict,
        "model": {"uri": uri, "digest": digest},
        "gates": [{**gate, "message": "accuracy 0.35 is below 0.40"}],
    }
    return {**job, "status": status}


def gated(verdict: str | None = "Passed", **spec: Any) -> Cluster:
    cluster = Cluster(inference_service(**{**GATED, **spec}))
    cluster.others[Reference("FineTuneJob", "support")] = tuned()
    cluster.others[Reference("EvalJob", "check")] = evaluated(verdict)
    cluster.settle()
    return cluster


def retuned(digest: str) -> Raw:
    """The FineTuneJob after it was made anew, with another result."""
    job = tuned()
    job["status"]["artifacts"] = [{"name": "merged", "uri": f"s3://store/{digest}", "digest": digest}]
    return job


def ready(cluster: Cluster, pods: int | None = None) -> None:
    """The Deployment controller has done its work."""
    wanted = cluster.deployments["support"]["spec"]["replicas"] if pods is None else pods
    deployed(cluster, replicas=wanted, readyReplicas=wanted, updatedReplicas=wanted)
    cluster.settle()


def deployed(cluster: Cluster, **status: Any) -> None:
    """The Deployment controller tells how far it is."""
    deployment = cluster.deployments["support"]
    deployment["status"] = {"observedGeneration": deployment["metadata"]["generation"], **status}


def serve_pod(cluster: Cluster, states: Raw, **status: Any) -> Raw:
    """A pod of the Deployment's present version."""
    template = cluster.deployments["support"]["spec"]["template"]
    containers = [("initContainers", "initContainerStatuses"), ("containers", "containerStatuses")]
    pod = {
        "metadata": {**template["metadata"], "name": "support-abc-1", "namespace": "team", "uid": "u1"},
        "spec": template["spec"],
        "status": {"phase": "Pending", "startTime": format_time(cluster.now), **status},
    }
    for where, statuses in containers:
        pod["status"][statuses] = [
            {"name": one["name"], **states.get(one["name"], {"state": waiting("PodInitializing")})}
            for one in template["spec"][where]
        ]
    cluster.pods["support-abc-1"] = pod
    return pod


def version(cluster: Cluster) -> str:
    return cluster.deployments["support"]["spec"]["template"]["metadata"]["annotations"]["tunesmith.dev/version"]


def test_a_model_without_a_gate_is_served():
    cluster = Cluster(inference_service(replicas=2))
    cluster.settle()
    assert cluster.status["phase"] == "Pending"
    assert cluster.status["candidate"] == {"uri": "s3://models/a"}
    assert "model" not in cluster.status
    ready(cluster)
    assert cluster.status["phase"] == "Ready"
    assert cluster.status["url"] == "http://support.team.svc/v1"
    assert cluster.status["model"] == {"uri": "s3://models/a"}
    assert "candidate" not in cluster.status
    assert (cluster.status["replicas"], cluster.status["readyReplicas"]) == (2, 2)
    assert cluster.condition("Ready")["status"] == "True"
    assert cluster.reconcile().is_empty


def test_the_selector_names_the_pods_for_autoscalers():
    cluster = Cluster(inference_service())
    cluster.settle()
    labels = cluster.deployments["support"]["spec"]["template"]["metadata"]["labels"]
    pairs = dict(pair.split("=") for pair in cluster.status["selector"].split(","))
    assert pairs.items() <= labels.items()


def test_it_waits_for_its_model_then_for_the_verdict():
    cluster = Cluster(inference_service(**GATED))
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Waiting", "WaitingForModel")
    cluster.others[Reference("FineTuneJob", "support")] = tuned()
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Waiting", "WaitingForVerdict")
    assert cluster.status["candidate"]["digest"] == "d2"
    cluster.others[Reference("EvalJob", "check")] = evaluated(None)
    cluster.settle()
    assert cluster.status["waitingFor"] == "EvalJob check to give its verdict; it is Running"
    assert cluster.deployments == {}
    cluster.others[Reference("EvalJob", "check")] = evaluated("Passed")
    cluster.settle()
    assert "support" in cluster.deployments
    assert cluster.condition("PromotionBlocked")["status"] == "False"


def test_nothing_is_served_that_failed_its_gate():
    cluster = gated("Failed")
    assert cluster.deployments == {}
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Blocked", "PromotionBlocked")
    blocked = cluster.condition("PromotionBlocked")
    assert blocked["status"] == "True"
    for word in ("EvalJob check", "FineTuneJob support", "qa", "accuracy 0.35 is below 0.40"):
        assert word in blocked["message"]
    assert cluster.condition("Ready")["status"] == "False"
    assert cluster.condition("Ready")["reason"] == "PromotionBlocked"


def test_a_failed_verdict_leaves_the_old_version_serving():
    cluster = gated()
    ready(cluster)
    before = json.dumps(cluster.deployments["support"]["spec"]["template"], sort_keys=True)
    cluster.others[Reference("FineTuneJob", "support")] = retuned("e5")
    cluster.others[Reference("EvalJob", "check")] = evaluated("Failed", "e5")
    cluster.settle()
    assert json.dumps(cluster.deployments["support"]["spec"]["template"], sort_keys=True) == before
    assert cluster.status["phase"] == "Blocked"
    assert cluster.status["model"]["digest"] == "d2"
    assert cluster.status["candidate"]["digest"] == "e5"
    assert cluster.condition("Ready")["status"] == "True"
    assert cluster.condition("Stalled")["status"] == "True"
    assert "goes on answering" in cluster.status["message"]
    assert cluster.events[-1].type is EventType.WARNING


def test_a_blocked_service_can_still_be_scaled():
    cluster = gated()
    ready(cluster)
    cluster.others[Reference("FineTuneJob", "support")] = retuned("e5")
    cluster.others[Reference("EvalJob", "check")] = evaluated("Failed", "e5")
    cluster.settle()
    old = version(cluster)
    cluster.resource = with_spec(cluster.resource, replicas=3)
    cluster.settle()
    assert cluster.deployments["support"]["spec"]["replicas"] == 3
    assert version(cluster) == old


def test_a_verdict_on_another_model_of_the_same_name_promotes_nothing():
    cluster = gated()
    ready(cluster)
    cluster.others[Reference("FineTuneJob", "support")] = retuned("e5")
    cluster.settle()
    assert cluster.status["phase"] == "Blocked"
    assert "scored another model" in cluster.status["message"]
    assert cluster.status["model"]["digest"] == "d2"


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


def test_what_was_promoted_stays_promoted_though_the_evaljob_goes():
    cluster = gated()
    ready(cluster)
    del cluster.others[Reference("EvalJob", "check")]
    assert cluster.reconcile().apply == ()
    assert cluster.status["phase"] == "Ready"
    cluster.resource = with_spec(cluster.resource, resources={"memory": "8Gi"})
    cluster.settle()
    template = cluster.deployments["support"]["spec"]["template"]
    assert template["spec"]["containers"][0]["resources"]["limits"] == {"memory": "8Gi"}


def test_what_was_promoted_is_remembered_of_each_evaljob():
    cluster = gated()
    assert cluster.status["passed"] == [{"evalJob": "check", "uri": "s3://store/run/merged", "digest": "d2"}]


def ungated() -> Cluster:
    """A service that answers, without a gate."""
    cluster = Cluster(inference_service(model=TUNED_MODEL))
    cluster.others[Reference("FineTuneJob", "support")] = tuned()
    cluster.settle()
    ready(cluster)
    return cluster


def bar(cluster: Cluster, how: str) -> None:
    """What is served comes to stand before a gate that it has not passed."""
    if how == "a gate is added":
        cluster.others[Reference("EvalJob", "check")] = evaluated("Failed")
    if how == "an EvalJob is added":
        cluster.others[Reference("EvalJob", "check")] = evaluated("Passed")
        cluster.others[Reference("EvalJob", "more")] = evaluated("Failed")
    names = [{"name": "check"}, *([{"name": "more"}] if how == "an EvalJob is added" else [])]
    cluster.resource = with_spec(cluster.resource, promotion={"evalJobs": names})
    if how == "the verdict changes":
        cluster.others[Reference("EvalJob", "check")] = evaluated("Passed")
        cluster.settle()
        cluster.others[Reference("EvalJob", "check")] = evaluated("Failed")
    cluster.settle()


HOW = pytest.mark.parametrize("how", ["a gate is added", "an EvalJob is added", "the verdict changes"])


@HOW
def test_what_answers_goes_on_when_it_is_barred_later_and_status_says_so(how):
    cluster = ungated()
    before = version(cluster)
    bar(cluster, how)
    assert version(cluster) == before
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Blocked", "PromotionBlocked")
    assert "has not passed" in cluster.condition("PromotionBlocked")["message"]
    assert cluster.condition("PromotionBlocked")["status"] == "True"
    assert cluster.condition("Stalled")["status"] == "True"
    assert cluster.condition("Ready")["status"] == "True"
    assert "it is deployed already and goes on answering" in cluster.status["message"]
    assert cluster.status["model"]["digest"] == "d2"
    assert "candidate" not in cluster.status


@HOW
def test_nothing_new_is_rolled_out_with_a_model_that_was_barred_later(how):
    cluster = ungated()
    before = version(cluster)
    bar(cluster, how)
    cluster.resource = with_spec(cluster.resource, resources={"memory": "8Gi"})
    cluster.settle()
    assert version(cluster) == before


def test_a_failed_verdict_is_not_undone_by_deleting_its_evaljob():
    cluster = gated()
    ready(cluster)
    cluster.others[Reference("EvalJob", "check")] = evaluated("Failed")
    cluster.settle()
    del cluster.others[Reference("EvalJob", "check")]
    cluster.settle()
    assert "passed" not in cluster.status
    assert cluster.condition("PromotionBlocked")["status"] == "Unknown"
    assert cluster.status["waitingFor"].startswith("EvalJob check")
    assert cluster.condition("Ready")["status"] == "True"


def test_a_verdict_on_a_later_model_takes_nothing_from_what_is_served():
    cluster = gated()
    ready(cluster)
    cluster.others[Reference("FineTuneJob", "support")] = retuned("e5")
    cluster.others[Reference("EvalJob", "check")] = evaluated("Failed", "e5")
    cluster.settle()
    cluster.others[Reference("FineTuneJob", "support")] = tuned()
    cluster.settle()
    assert cluster.status["phase"] == "Ready"


def test_every_evaljob_must_have_passed():
    cluster = Cluster(
        inference_service(model=TUNED_MODEL, promotion={"evalJobs": [{"name": "check"}, {"name": "more"}]})
    )
    cluster.others[Reference("FineTuneJob", "support")] = tuned()
    cluster.others[Reference("EvalJob", "check")] = evaluated("Passed")
    cluster.others[Reference("EvalJob", "more")] = evaluated("Failed")
    cluster.settle()
    assert "EvalJob more" in cluster.status["message"]
    assert cluster.deployments == {}


def test_a_model_of_a_uri_is_served_from_where_it_was_scored():
    uri = {"uri": "hf://a/b"}
    cluster = Cluster(inference_service(model=uri, promotion={"evalJobs": [{"name": "check"}]}))
    cluster.others[Reference("EvalJob", "check")] = evaluated("Passed", "d9", uri, "s3://store/models/1")
    cluster.settle()
    run = json.loads(cluster.deployments["support"]["spec"]["template"]["metadata"]["annotations"]["tunesmith.dev/run"])
    assert (run["models"]["base"]["uri"], run["models"]["base"]["digest"]) == ("s3://store/models/1", "d9")
    ready(cluster)
    del cluster.others[Reference("EvalJob", "check")]
    cluster.settle()
    assert cluster.status["phase"] == "Ready"


def test_a_promotion_by_name_only_says_so():
    plain = {"uri": "s3://models/a"}
    cluster = Cluster(inference_service(model=plain, promotion={"evalJobs": [{"name": "check"}]}))
    cluster.others[Reference("EvalJob", "check")] = evaluated("Passed", "d9", plain, "s3://models/a")
    cluster.settle()
    assert "by the name of the folder only" in cluster.condition("PromotionBlocked")["message"]
    assert gated().condition("PromotionBlocked")["message"] == "passed by EvalJob check"


def test_a_verdict_on_another_uri_promotes_nothing():
    cluster = Cluster(inference_service(model={"uri": "hf://a/b"}, promotion={"evalJobs": [{"name": "check"}]}))
    cluster.others[Reference("EvalJob", "check")] = evaluated("Passed", "d9", {"uri": "hf://c/d"})
    cluster.settle()
    assert cluster.status["phase"] == "Blocked"


def test_replicas_are_those_of_the_spec_and_do_not_make_a_version():
    cluster = Cluster(inference_service(replicas=1))
    cluster.settle()
    ready(cluster)
    old = version(cluster)
    cluster.resource = with_spec(cluster.resource, replicas=5)
    cluster.settle()
    assert cluster.deployments["support"]["spec"]["replicas"] == 5
    assert version(cluster) == old
    assert cluster.status["phase"] == "Ready"
    assert cluster.condition("Ready")["status"] == "True"
    assert cluster.condition("Reconciling")["status"] == "True"


def test_status_counts_all_pods_for_autoscalers():
    cluster = Cluster(inference_service(replicas=3))
    cluster.settle()
    deployed(cluster, replicas=3, readyReplicas=1, updatedReplicas=3)
    cluster.settle()
    assert (cluster.status["replicas"], cluster.status["readyReplicas"]) == (3, 1)
    assert cluster.status["message"] == "1 of 3 pods answer"


def test_suspend_takes_the_pods_and_keeps_the_service():
    cluster = Cluster(inference_service(replicas=2))
    cluster.settle()
    ready(cluster)
    cluster.resource = with_spec(cluster.resource, suspend=True)
    cluster.settle()
    ready(cluster, 0)
    assert cluster.deployments["support"]["spec"]["replicas"] == 0
    assert "support" in cluster.services
    assert cluster.status["phase"] == "Suspended"
    assert cluster.condition("Ready") == {}
    assert cluster.status["model"] == {"uri": "s3://models/a"}


def test_no_replicas_is_no_answer():
    cluster = Cluster(inference_service(replicas=0))
    cluster.settle()
    ready(cluster)
    assert cluster.status["reason"] == "ScaledToZero"
    assert cluster.condition("Ready") == {}


@pytest.mark.parametrize(("strategy", "type_"), [("Surge", "RollingUpdate"), ("Recreate", "Recreate")])
def test_the_rollout_strategy_is_the_deployments(strategy, type_):
    cluster = Cluster(inference_service(rollout={"strategy": strategy}))
    cluster.settle()
    assert cluster.deployments["support"]["spec"]["strategy"]["type"] == type_


def test_what_the_api_server_fills_in_is_no_reason_to_write():
    cluster = Cluster(inference_service(resources={"memory": "1024Mi"}))
    cluster.settle()
    deployment = cluster.deployments["support"]
    deployment["spec"]["template"]["spec"]["dnsPolicy"] = "ClusterFirst"
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    container["terminationMessagePath"] = "/dev/termination-log"
    container["resources"]["limits"]["memory"] = "1Gi"
    assert cluster.reconcile().apply == ()


@pytest.mark.parametrize("field", ["replicas", "template"])
def test_an_edited_deployment_is_repaired(field):
    cluster = Cluster(inference_service())
    cluster.settle()
    ready(cluster)
    spec = cluster.deployments["support"]["spec"]
    if field == "replicas":
        spec["replicas"] = 7
    else:
        spec["template"]["spec"]["containers"][0]["image"] = "another"
    assert [one["kind"] for one in cluster.reconcile().apply] == ["Deployment"]
    assert cluster.reconcile().apply == ()


def test_a_deleted_service_is_made_again():
    cluster = Cluster(inference_service())
    cluster.settle()
    cluster.services.clear()
    assert [one["kind"] for one in cluster.reconcile().apply] == ["Service"]


def test_an_empty_variable_is_no_reason_to_write_for_ever():
    cluster = Cluster(inference_service(pod={"env": [{"name": "EMPTY", "value": ""}], "tolerations": [{"value": ""}]}))
    cluster.settle()
    pod = cluster.deployments["support"]["spec"]["template"]["spec"]
    assert {"name": "EMPTY"} in pod["containers"][0]["env"]
    del pod["tolerations"][0]["value"]
    assert cluster.reconcile().apply == ()


def test_the_deployment_of_a_deleted_resource_of_the_same_name_is_waited_for():
    cluster = Cluster(inference_service())
    cluster.foreign |= {Key("Deployment", "support"), Key("Service", "support")}
    cluster.former |= cluster.foreign
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Waiting", "Stopping")
    cluster.former.remove(Key("Service", "support"))
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Failed", "NameConflict")


@pytest.mark.parametrize("kind", ["Deployment", "Service"])
def test_somebody_elses_object_of_that_name_is_left_alone(kind):
    cluster = Cluster(inference_service())
    cluster.foreign.add(Key(kind, "support"))
    cluster.settle()
    assert (cluster.deployments, cluster.services) == ({}, {})
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Failed", "NameConflict")
    cluster.foreign.clear()
    cluster.settle()
    assert "support" in cluster.deployments


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
def test_a_pod_that_does_not_come_up_is_diagnosed(states, class_, words):
    cluster = Cluster(inference_service())
    cluster.settle()
    serve_pod(cluster, states)
    cluster.settle()
    assert cluster.status["lastFailure"]["class"] == class_
    assert words in cluster.status["message"]
    assert cluster.status["reason"] == class_
    assert cluster.condition("Reconciling")["status"] == "True"


def test_a_quota_that_lets_no_pod_in_is_told():
    cluster = Cluster(inference_service())
    cluster.settle()
    failure = condition("ReplicaFailure", True, "FailedCreate", 'pods "x" is forbidden: exceeded quota: gpu')
    deployed(cluster, conditions=[failure])
    cluster.settle()
    assert cluster.status["lastFailure"]["class"] == "QuotaExceeded"


def test_a_version_that_is_not_ready_in_time_stalls_and_says_why():
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


def test_the_digest_is_what_the_pods_have_read():
    cluster = Cluster(inference_service(model={"uri": "hf://a/b"}))
    cluster.settle()
    told = report("fetch", modelUri="s3://store/models/1", modelDigest="d9")
    serve_pod(cluster, {"fetch": {"state": ended(message=told)}, "serve": {"state": running()}})
    ready(cluster)
    assert cluster.status["model"] == {"uri": "s3://store/models/1", "digest": "d9"}


def test_adapters_are_served_beside_the_model():
    adapters = [{"name": "fr", "fineTuneJob": {"name": "fr"}}, {"name": "de", "uri": "s3://adapters/de"}]
    cluster = Cluster(inference_service(adapters=adapters))
    cluster.settle()
    assert cluster.status["waitingFor"].startswith("FineTuneJob fr")
    cluster.others[Reference("FineTuneJob", "fr")] = tuned("fr")
    cluster.settle()
    ready(cluster)
    assert cluster.status["adapters"] == [
        {"name": "fr", "uri": "s3://store/run/adapter", "digest": "d1"},
        {"name": "de", "uri": "s3://adapters/de"},
    ]


def test_a_refused_spec_leaves_the_old_version_serving():
    cluster = Cluster(inference_service())
    cluster.settle()
    ready(cluster)
    old = version(cluster)
    cluster.resource = with_spec(cluster.resource, engine="vllm", replicas=2, resources={"accelerator": "nvidia"})
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Failed", "BadSpec")
    assert "images.engines.vllm" in cluster.status["message"]
    assert version(cluster) == old
    assert cluster.condition("Ready")["status"] == "True"


def test_a_new_image_of_the_operator_is_a_new_version():
    cluster = Cluster(inference_service())
    cluster.settle()
    old = version(cluster)
    images = CONFIG.images.model_copy(update={"runtime": "registry/runtime:2"})
    cluster.config = CONFIG.model_copy(update={"images": images})
    cluster.settle()
    assert version(cluster) != old


def test_a_service_on_its_way_out_gets_nothing_new():
    cluster = Cluster(inference_service())
    cluster.resource["metadata"]["deletionTimestamp"] = "2026-11-22T12:00:00Z"
    assert cluster.reconcile().is_empty


def test_the_api_key_is_named_and_only_the_engine_gets_it():
    cluster = Cluster(inference_service(apiKeySecret="chat-key"))
    cluster.settle()
    pod = cluster.deployments["support"]["spec"]["template"]["spec"]
    named = [
        one["name"]
        for one in [*pod["initContainers"], *pod["containers"]]
        for variable in one["env"]
        if variable["name"] == "TUNESMITH_API_KEY"
    ]
    assert named == ["serve"]


def test_a_refused_deployment_is_told_and_not_tried_in_the_same_breath():
    cluster = Cluster(inference_service())
    cluster.refused[Key("Deployment", "support")] = 'deployments.apps "support" is forbidden: exceeded quota: x'
    cluster.settle()
    assert "support" not in cluster.deployments
    assert cluster.status["lastFailure"]["class"] == "QuotaExceeded"
    assert cluster.plans[-1].requeue_after == pytest.approx(30)
