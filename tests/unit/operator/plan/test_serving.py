"""Versions of a service over time: what is kept, what is rolled back, who scales it, and what protects its pods."""

from __future__ import annotations

import copy
import json
import os
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.operator.plan.inferenceservice.test_plan import (
    GATED,
    TUNED_MODEL,
    deployed,
    evaluated,
    gated,
    ready,
    retuned,
    serve_pod,
    version,
)
from tests.unit.operator.plan.world import (
    CONFIG,
    Cluster,
    condition,
    ended,
    failed_report,
    inference_service,
    waiting,
    with_engines,
    with_spec,
)
from tunesmith_operator.plan import KINDS
from tunesmith_operator.plan.times import format_time
from tunesmith_operator.plan.types import EventType, Key, Raw, Reference

LATE = condition("Progressing", False, "ProgressDeadlineExceeded")
NO_IMAGE = {"fetch": {"state": waiting("ErrImagePull", "not found")}}
AUTOSCALED = {"autoscaling": {"maxReplicas": 5}}


def serving(**spec: Any) -> Cluster:
    """A service whose first version answers."""
    cluster = Cluster(inference_service(**spec))
    cluster.settle()
    ready(cluster)
    return cluster


def template(cluster: Cluster) -> Raw:
    """The Deployment's pods."""
    return copy.deepcopy(cluster.deployments["support"]["spec"]["template"])


def change(cluster: Cluster, **spec: Any) -> None:
    cluster.resource = with_spec(cluster.resource, **spec)
    cluster.settle()


def fail(cluster: Cluster, states: Raw = NO_IMAGE) -> None:
    """The version that is deployed does not get ready in time."""
    deployed(cluster, replicas=2, readyReplicas=1, updatedReplicas=1, conditions=[LATE])
    serve_pod(cluster, states)
    cluster.settle()
    cluster.pods.clear()


def upgrade(cluster: Cluster) -> None:
    """The operator comes with another image, and everything is looked at."""
    images = CONFIG.images.model_copy(update={"runtime": "registry/runtime:2"})
    cluster.config = CONFIG.model_copy(update={"images": images})
    cluster.settle()


def rolled_back() -> Cluster:
    """A service whose second version failed."""
    cluster = serving()
    change(cluster, maxModelLength=512)
    fail(cluster)
    ready(cluster)
    return cluster


def engine(cluster: Cluster) -> str:
    """The engine of the Deployment's pods, which status has to name."""
    run = json.loads(template(cluster)["metadata"]["annotations"]["tunesmith.dev/run"])
    assert cluster.status["engine"] == run["spec"]["engine"]
    return str(run["spec"]["engine"])


def test_a_service_that_leaves_the_engine_open_keeps_the_one_that_answers() -> None:
    cluster = serving(resources={"accelerator": "nvidia"})
    before = template(cluster)
    assert engine(cluster) == "lmdeploy"
    for engines in ({}, {"vllm": "registry/vllm:1"}, {"lmdeploy": "registry/lmdeploy:2"}):
        cluster.config = with_engines(engines)
        cluster.settle()
        change(cluster, replicas=2)
        assert template(cluster) == before
        assert engine(cluster) == "lmdeploy"


def test_the_next_version_has_the_first_engine_that_has_an_image_by_then() -> None:
    cluster = serving(resources={"accelerator": "nvidia"})
    cluster.config = with_engines({"sglang": "registry/sglang:1"})
    change(cluster, restart="now")
    assert engine(cluster) == "sglang"


def test_what_was_given_up_is_not_tried_again_because_auto_would_be_another_engine_by_now() -> None:
    cluster = serving(resources={"accelerator": "nvidia"})
    before = template(cluster)
    change(cluster, maxModelLength=512)
    fail(cluster)
    ready(cluster)
    for engines in ({}, {"vllm": "registry/vllm:1"}):
        cluster.config = with_engines(engines)
        cluster.settle()
        assert cluster.status["phase"] == "RolledBack"
        assert template(cluster) == before
    change(cluster, engine="transformers")
    assert engine(cluster) == "transformers"


def test_auto_is_tried_in_the_place_of_an_engine_that_was_given_up() -> None:
    cluster = serving(resources={"accelerator": "nvidia"})
    cluster.config = with_engines({"vllm": "registry/vllm:1", "lmdeploy": "registry/lmdeploy:1"})
    change(cluster, engine="vllm", maxModelLength=512)
    fail(cluster)
    ready(cluster)
    assert engine(cluster) == "lmdeploy"
    assert cluster.status["phase"] == "RolledBack"
    change(cluster, engine="auto")
    assert cluster.status["phase"] == "RollingOut"
    assert engine(cluster) == "lmdeploy"


def test_an_engine_that_is_named_is_rolled_out_though_another_answers() -> None:
    cluster = serving(resources={"accelerator": "nvidia"})
    change(cluster, engine="transformers")
    assert engine(cluster) == "transformers"


def test_a_version_that_has_never_answered_gets_the_engine_that_has_an_image_by_now() -> None:
    cluster = Cluster(inference_service(resources={"accelerator": "nvidia"}), config=with_engines({}))
    cluster.settle()
    assert engine(cluster) == "transformers"
    cluster.config = CONFIG
    cluster.settle()
    assert engine(cluster) == "lmdeploy"


def test_a_version_that_is_not_ready_in_time_gives_way_to_the_one_before_it() -> None:
    cluster = serving()
    before = template(cluster)
    change(cluster, maxModelLength=512)
    bad = version(cluster)
    fail(cluster)
    assert template(cluster) == before
    assert cluster.status["rolledBack"]["version"] == bad
    ready(cluster)
    assert (cluster.status["phase"], cluster.status["reason"]) == ("RolledBack", "RolledBack")
    for word in (bad, "readyTimeout (30m)", "not found", "1 of 1 pods answer", "change the spec"):
        assert word in cluster.status["message"]
    assert cluster.condition("RolledBack")["status"] == "True"
    assert cluster.condition("Ready")["status"] == "True"
    assert cluster.condition("Stalled")["status"] == "True"
    assert cluster.status["lastFailure"]["class"] == "ImagePull", "the cause outlives its pod"
    assert cluster.status["candidate"] == {"uri": "s3://models/a"}
    assert [event.reason for event in cluster.events].count("RolledBack") == 1
    assert next(event for event in cluster.events if event.reason == "RolledBack").type is EventType.WARNING


def test_giving_up_is_written_down_before_anything_is_rolled_back() -> None:
    cluster = serving()
    change(cluster, maxModelLength=512)
    deployed(cluster, replicas=2, readyReplicas=1, updatedReplicas=1, conditions=[LATE])
    given_up = cluster.reconcile()
    assert given_up.apply == ()
    assert given_up.status
    assert given_up.status["rolledBack"]
    assert given_up.for_good
    assert given_up.requeue_after == 1
    next_look = cluster.reconcile()
    assert [one["kind"] for one in next_look.apply] == ["Deployment"]
    assert not next_look.for_good


def test_what_failed_is_not_tried_again_by_scaling_suspending_or_an_upgrade() -> None:
    cluster = rolled_back()
    before = template(cluster)
    for spec in ({"replicas": 3}, {"suspend": True}, {"suspend": False}, {"replicas": 0}, {"replicas": 1}):
        change(cluster, **spec)
        assert template(cluster) == before, spec
    upgrade(cluster)
    assert template(cluster) == before
    assert cluster.status["phase"] == "RolledBack"


@pytest.mark.parametrize(
    "spec",
    [
        {"maxModelLength": 256},
        {"restart": "1"},
        {"rollout": {"readyTimeout": "1h"}},
        {"rollout": {"strategy": "Recreate"}},
    ],
)
def test_a_change_of_what_was_asked_or_how_it_is_rolled_out_is_tried(spec: Raw) -> None:
    cluster = rolled_back()
    good = version(cluster)
    change(cluster, **spec)
    assert version(cluster) != good
    assert cluster.status["phase"] == "RollingOut"
    assert "rolledBack" not in cluster.status
    assert cluster.condition("RolledBack") == {}


def test_another_model_is_tried_after_one_that_failed() -> None:
    cluster = gated()
    ready(cluster)
    for digest in ("e5", "f6"):
        cluster.others[Reference("FineTuneJob", "support")] = retuned(digest)
        cluster.others[Reference("EvalJob", "check")] = evaluated("Passed", digest)
        cluster.settle()
        assert (
            json.loads(template(cluster)["metadata"]["annotations"]["tunesmith.dev/run"])["models"]["base"]["digest"]
            == digest
        )
        fail(cluster)
        ready(cluster)
        assert cluster.status["phase"] == "RolledBack"
        assert cluster.status["model"]["digest"] == "d2"
        assert cluster.status["candidate"]["digest"] == digest


def test_going_back_by_hand_to_what_answers_ends_the_roll_back() -> None:
    cluster = rolled_back()
    before = template(cluster)
    spec = {name: value for name, value in cluster.resource["spec"].items() if name != "maxModelLength"}
    cluster.resource = {**with_spec(cluster.resource), "spec": spec}
    cluster.settle()
    assert template(cluster) == before
    assert cluster.status["phase"] == "Ready"
    assert "rolledBack" not in cluster.status


def test_the_first_version_has_none_to_go_back_to_and_says_so() -> None:
    cluster = Cluster(inference_service())
    cluster.settle()
    before = template(cluster)
    fail(cluster)
    assert template(cluster) == before
    assert cluster.status["reason"] == "RolloutTimeout"
    assert "No other version was ready before" in cluster.status["message"]


def broken(class_: str) -> Raw:
    """The states of a pod whose fetch has found a fault in the model, and is started again."""
    state = ended(89, failed_report("fetch", class_, "s3://m/config.json: the files lack a.weight", hint="upload it"))
    return {"fetch": {"state": waiting("CrashLoopBackOff"), "lastState": state, "restartCount": 1}}


@pytest.mark.parametrize("class_", ["BadModel", "ModelNotFound", "UnsafeWeights", "BadSpec"])
def test_a_fault_of_the_model_fails_a_first_version_at_once_and_says_what_to_do(class_: str) -> None:
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


def test_a_fault_of_the_model_gives_a_later_version_up_at_once() -> None:
    cluster = serving()
    before = template(cluster)
    change(cluster, maxModelLength=512)
    deployed(cluster, replicas=2, readyReplicas=1, updatedReplicas=1)
    serve_pod(cluster, broken("BadModel"))
    cluster.settle()
    assert template(cluster) == before
    assert "the files lack a.weight" in cluster.status["rolledBack"]["message"]


def test_what_answers_is_not_given_up_where_its_model_is_damaged_later() -> None:
    cluster = serving(replicas=2)
    before = template(cluster)
    deployed(cluster, replicas=2, readyReplicas=1, updatedReplicas=2)
    serve_pod(cluster, broken("BadModel"))
    cluster.settle()
    assert template(cluster) == before
    assert cluster.status["phase"] == "Ready"
    assert cluster.status["lastFailure"]["class"] == "BadModel"


def test_what_was_ready_and_does_not_come_up_again_is_tried_on() -> None:
    cluster = serving()
    before = template(cluster)
    cluster.deployments.clear()
    cluster.settle()
    fail(cluster)
    assert template(cluster) == before
    assert cluster.status["reason"] == "RolloutTimeout"
    assert "It was ready before" in cluster.status["message"]


def test_a_version_is_late_by_the_age_of_its_pods_where_the_deployment_does_not_count() -> None:
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


def test_a_roll_back_that_is_late_itself_is_not_rolled_back() -> None:
    cluster = rolled_back()
    good = template(cluster)
    deployed(cluster, replicas=1, readyReplicas=0, updatedReplicas=1, conditions=[LATE])
    cluster.settle()
    assert template(cluster) == good
    assert cluster.status["phase"] == "RolledBack"
    assert cluster.condition("Ready")["status"] == "False"


def test_no_room_for_a_second_set_of_pods_is_told_with_the_way_out() -> None:
    cluster = serving()
    change(cluster, maxModelLength=512)
    deployed(cluster, replicas=2, readyReplicas=1, updatedReplicas=1, conditions=[LATE])
    no_gpu = condition(
        "PodScheduled", False, "Unschedulable", "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    )
    serve_pod(cluster, {}, conditions=[no_gpu], startTime=None)
    cluster.settle()
    assert "spec.rollout.strategy: Recreate" in cluster.status["message"]


@pytest.mark.parametrize("how", ["the model is awaited", "the model is barred"])
def test_a_deleted_deployment_comes_back_as_the_last_version_that_was_ready(how: str) -> None:
    cluster = gated()
    ready(cluster)
    before = template(cluster)
    if how == "the model is awaited":
        cluster.others.clear()
    else:
        cluster.others[Reference("FineTuneJob", "support")] = retuned("e5")
        cluster.others[Reference("EvalJob", "check")] = evaluated("Failed", "e5")
    cluster.settle()
    cluster.deployments.clear()
    cluster.settle()
    assert template(cluster) == before


def test_an_upgrade_of_the_operator_leaves_what_was_ready_as_it_is() -> None:
    cluster = serving()
    before = template(cluster)
    upgrade(cluster)
    assert template(cluster) == before
    assert cluster.status["phase"] == "Ready"
    change(cluster, restart="2026-11-22")
    assert template(cluster)["spec"]["containers"][0]["image"] == "registry/runtime:2"


def test_an_upgrade_leaves_what_is_only_partly_ready_as_it_is() -> None:
    cluster = Cluster(inference_service(replicas=2))
    cluster.settle()
    before = template(cluster)
    deployed(cluster, replicas=2, readyReplicas=1, updatedReplicas=2)
    serve_pod(cluster, {}, conditions=[condition("Ready")])
    upgrade(cluster)
    assert template(cluster) == before


def test_an_upgrade_mends_a_version_that_never_answered() -> None:
    cluster = Cluster(inference_service())
    cluster.settle()
    upgrade(cluster)
    assert template(cluster)["spec"]["containers"][0]["image"] == "registry/runtime:2"


def test_a_version_of_an_operator_that_kept_no_record_is_taken_over_as_it_is() -> None:
    """Templates of release 0.1.0: their preStop hook is in no template of today."""
    cluster = serving()
    cluster.revisions.clear()
    old = cluster.deployments["support"]["spec"]["template"]
    old["spec"]["containers"][0]["lifecycle"] = {"preStop": {"sleep": {"seconds": 5}}}
    before = template(cluster)
    upgrade(cluster)
    assert template(cluster) == before
    [revision] = cluster.revisions.values()
    assert revision["data"]["template"] == before
    change(cluster, maxModelLength=512)
    assert "lifecycle" not in template(cluster)["spec"]["containers"][0]
    fail(cluster)
    assert template(cluster) == before


@pytest.mark.parametrize("field", ["image", "version", "run"])
def test_what_is_edited_by_hand_is_put_right_from_the_record(field: str) -> None:
    cluster = serving()
    before = template(cluster)
    upgrade(cluster)
    edited = cluster.deployments["support"]["spec"]["template"]
    if field == "image":
        edited["spec"]["containers"][0]["image"] = "evil"
    else:
        edited["metadata"]["annotations"][f"tunesmith.dev/{field}"] = "0123456789ab"
    cluster.settle()
    assert template(cluster) == before


def test_each_version_is_recorded_before_its_deployment_and_old_records_go() -> None:
    cluster = Cluster(inference_service())
    first = cluster.plan()
    assert [one["kind"] for one in first.create] == ["ControllerRevision"]
    cluster.settle()
    ready(cluster)
    for length in (128, 256):
        change(cluster, maxModelLength=length)
        assert len(cluster.revisions) == 2, "the one that answers and the new one"
        ready(cluster)
        assert list(cluster.revisions) == [f"support-{version(cluster)}"]
    assert cluster.reconcile().is_empty


def test_a_deleted_record_is_made_again() -> None:
    cluster = serving()
    cluster.revisions.clear()
    cluster.settle()
    assert list(cluster.revisions) == [f"support-{version(cluster)}"]


@pytest.mark.parametrize(
    "data", [None, "x", [], {"template": 3}, {"template": {}}, {"template": {"metadata": 1}}], ids=str
)
def test_a_record_that_is_none_breaks_nothing(data: Any) -> None:
    cluster = serving()
    before = template(cluster)
    cluster.revisions["support-000000000000"] = {"metadata": {"name": "support-000000000000"}, "data": data}
    cluster.settle()
    assert template(cluster) == before
    assert list(cluster.revisions) == [f"support-{version(cluster)}"]


def test_a_refused_record_keeps_nothing_from_being_served() -> None:
    cluster = Cluster(inference_service())
    cluster.refused[Key("ControllerRevision", f"support-{version(_twin(cluster))}")] = "exceeded quota: few"
    cluster.settle()
    assert "support" in cluster.deployments
    assert cluster.status["lastFailure"]["class"] == "QuotaExceeded"


def _twin(cluster: Cluster) -> Cluster:
    twin = Cluster(cluster.resource)
    twin.settle()
    return twin


def test_a_new_version_waits_for_pods_to_be_wanted() -> None:
    """Without pods nothing would count how long it takes."""
    cluster = serving()
    before = template(cluster)
    change(cluster, suspend=True)
    ready(cluster, 0)
    change(cluster, maxModelLength=512)
    assert template(cluster) == before
    assert cluster.status["candidate"] == {"uri": "s3://models/a"}
    change(cluster, suspend=False)
    assert version(cluster) != before["metadata"]["annotations"]["tunesmith.dev/version"]
    assert cluster.deployments["support"]["spec"]["replicas"] == 1


def test_suspended_pods_that_still_finish_answers_are_told() -> None:
    cluster = serving()
    cluster.resource = with_spec(cluster.resource, suspend=True)
    serve_pod(cluster, {}, phase="Running")
    cluster.settle()
    ready(cluster, 0)
    assert "1 pods finish their answers" in cluster.status["message"]
    cluster.pods.clear()
    cluster.settle()
    assert "no pods" in cluster.status["message"]
    assert cluster.condition("Reconciling")["status"] == "False"


def test_answers_get_the_time_to_finish_that_the_owner_gives_them() -> None:
    assert template(serving())["spec"]["terminationGracePeriodSeconds"] == 120
    assert template(serving(drainSeconds=900))["spec"]["terminationGracePeriodSeconds"] == 900


def test_an_autoscaler_scales_the_resource_and_not_its_deployment() -> None:
    cluster = serving(**AUTOSCALED)
    spec = cluster.autoscalers["support"]["spec"]
    target = {"apiVersion": "tunesmith.dev/v1alpha1", "kind": "InferenceService", "name": "support"}
    assert spec["scaleTargetRef"] == target
    assert (spec["minReplicas"], spec["maxReplicas"]) == (1, 5)
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}
    assert spec["metrics"] == [{"type": "Resource", "resource": cpu}]
    change(cluster, replicas=4)
    assert cluster.deployments["support"]["spec"]["replicas"] == 4


def test_an_autoscaler_goes_by_a_metric_of_the_pods_where_one_is_named() -> None:
    cluster = serving(
        autoscaling={"maxReplicas": 5, "metric": {"name": "vllm:num_requests_waiting", "average": "1500m"}}
    )
    metric = {
        "metric": {"name": "vllm:num_requests_waiting"},
        "target": {"type": "AverageValue", "averageValue": "1500m"},
    }
    assert cluster.autoscalers["support"]["spec"]["metrics"] == [{"type": "Pods", "pods": metric}]
    metric["target"]["averageValue"] = "1.5"  # type: ignore[index]
    cluster.autoscalers["support"]["spec"]["metrics"] = [{"type": "Pods", "pods": metric}]
    assert cluster.reconcile().apply == ()


@pytest.mark.parametrize("spec", [{"suspend": True}, {"autoscaling": None}])
def test_no_autoscaler_where_nothing_is_to_be_scaled(spec: Raw) -> None:
    cluster = serving(**AUTOSCALED)
    change(cluster, **spec)
    assert cluster.autoscalers == {}
    assert cluster.condition("AutoscalingActive") == {}
    assert {"kind": "HorizontalPodAutoscaler", "name": "support"} not in cluster.status["children"]


def test_an_autoscaler_without_metrics_is_told_plainly_and_the_pods_answer_on() -> None:
    cluster = serving(**AUTOSCALED)
    assert cluster.condition("AutoscalingActive")["status"] == "Unknown"
    able = condition("AbleToScale", True, "SucceededGetScale")
    words = "unable to fetch metrics from resource metrics API"
    told = [able, condition("ScalingActive", False, "FailedGetResourceMetric", words)]
    cluster.autoscalers["support"]["status"] = {"conditions": told}
    cluster.settle()
    active = cluster.condition("AutoscalingActive")
    assert (active["status"], active["reason"]) == ("False", "FailedGetResourceMetric")
    assert words in cluster.status["message"]
    assert "metrics-server" in cluster.status["message"]
    assert cluster.condition("Ready")["status"] == "True"
    cluster.autoscalers["support"]["status"] = {
        "conditions": [able, condition("ScalingActive", True, "ValidMetricFound")]
    }
    cluster.settle()
    assert cluster.condition("AutoscalingActive")["status"] == "True"
    assert cluster.status["message"] == "1 of 1 pods answer"


def test_an_autoscaler_of_somebody_else_by_that_name_is_told_and_left() -> None:
    cluster = Cluster(inference_service(**AUTOSCALED))
    cluster.foreign.add(Key("HorizontalPodAutoscaler", "support"))
    cluster.settle()
    ready(cluster)
    assert cluster.autoscalers == {}
    assert cluster.status["phase"] == "Ready"
    assert cluster.condition("AutoscalingActive")["reason"] == "NameConflict"


BUDGETS: dict[str, tuple[Raw, bool]] = {
    "one pod": ({}, False),
    "several": ({"replicas": 2}, True),
    "none": ({"replicas": 0}, False),
    "several some day": (AUTOSCALED, True),
    "the owner's own": ({"replicas": 3, "disruptionBudget": "Never"}, False),
    "suspended": ({"replicas": 3, "suspend": True}, False),
}


@pytest.mark.parametrize(("spec", "wanted"), BUDGETS.values(), ids=BUDGETS)
def test_several_pods_are_evicted_one_at_a_time_and_a_single_one_freely(spec: Raw, wanted: bool) -> None:
    cluster = Cluster(inference_service(**spec))
    cluster.settle()
    assert [one["spec"]["maxUnavailable"] for one in cluster.budgets.values()] == ([1] if wanted else [])


def test_a_budget_goes_when_a_single_pod_is_left() -> None:
    cluster = serving(replicas=2)
    assert "support" in cluster.budgets
    change(cluster, replicas=1)
    assert cluster.budgets == {}


def test_a_budget_of_somebody_else_by_that_name_is_told_and_left() -> None:
    cluster = Cluster(inference_service(replicas=2))
    cluster.foreign.add(Key("PodDisruptionBudget", "support"))
    cluster.settle()
    ready(cluster)
    assert cluster.budgets == {}
    assert cluster.status["phase"] == "Ready"
    assert "there is a PodDisruptionBudget support that is not of this resource" in cluster.status["message"]
    change(cluster, disruptionBudget="Never")
    assert "PodDisruptionBudget" not in cluster.status["message"]


def test_what_is_not_always_wanted_is_looked_for_where_it_may_be() -> None:
    kind = KINDS["InferenceService"]
    cluster = serving()
    plain = {Key("Deployment", "support"), Key("Service", "support")}
    both = {Key("HorizontalPodAutoscaler", "support"), Key("PodDisruptionBudget", "support")}
    assert kind.gets(cluster.resource) == plain
    assert kind.gets(with_spec(cluster.resource)) == plain | both, "a kill may have come before the status"
    change(cluster, **AUTOSCALED)
    assert kind.gets(cluster.resource) == plain | both
    change(cluster, autoscaling=None)
    assert kind.gets(cluster.resource) == plain


@pytest.mark.parametrize("kind", ["Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget"])
@pytest.mark.parametrize("how", ["deleted", "edited"])
def test_a_child_that_is_edited_or_deleted_is_repaired_and_nothing_else_written(kind: str, how: str) -> None:
    cluster = serving(replicas=2, **AUTOSCALED)
    shelf = cluster.shelf(kind)
    if how == "deleted":
        shelf.clear()
    else:
        shelf["support"]["metadata"]["labels"].clear()
    assert [one["kind"] for one in cluster.reconcile().apply] == [kind]
    assert cluster.reconcile().apply == ()


class Life:
    """A service, its owner, its cluster and its operator, each doing what they may."""

    def __init__(self, spec: Raw) -> None:
        self.cluster = Cluster(inference_service(**spec))
        self.lost: set[str] = set()
        """Versions whose record somebody has deleted: what is deployed is recorded again, what was before it is not."""
        self.cluster.others[Reference("FineTuneJob", "support")] = retuned("d2")
        self.cluster.others[Reference("EvalJob", "check")] = evaluated("Passed", "d2")

    def edit(self, spec: Raw) -> None:
        self.cluster.resource = with_spec(self.cluster.resource, **spec)

    def retune(self, digest: str, verdict: str | None) -> None:
        self.cluster.others[Reference("FineTuneJob", "support")] = retuned(digest)
        self.cluster.others[Reference("EvalJob", "check")] = evaluated(verdict, digest)

    def deploy(self, ready_: bool, late: bool) -> None:
        if "support" in self.cluster.deployments:
            wanted = self.cluster.deployments["support"]["spec"]["replicas"]
            counts = {"replicas": wanted, "readyReplicas": wanted if ready_ else 0, "updatedReplicas": wanted}
            deployed(self.cluster, **counts, conditions=[LATE] if late else [])

    def pod(self, states: Raw, is_ready: bool) -> None:
        if "support" in self.cluster.deployments:
            serve_pod(self.cluster, states, conditions=[condition("Ready", is_ready)])

    def lose(self, kind: str) -> None:
        if kind == "ControllerRevision":
            self.lost |= {name.removeprefix("support-") for name in self.cluster.revisions}
        self.cluster.shelf(kind).clear()

    def tamper(self, image: str) -> None:
        for one in self.cluster.deployments.values():
            one["spec"]["template"]["spec"]["containers"][0]["image"] = image
            one["metadata"]["generation"] += 1

    def configure(self, image: str) -> None:
        images = CONFIG.images.model_copy(update={"runtime": image})
        self.cluster.config = CONFIG.model_copy(update={"images": images})

    def die(self) -> None:
        """The operator is killed between its children and its status."""
        resource = self.cluster.resource
        self.cluster.reconcile()
        self.cluster.resource = resource

    def wait(self, seconds: int) -> None:
        self.cluster.now += timedelta(seconds=seconds)


def act(name: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[str, tuple[Any, ...]]]:
    return st.tuples(st.just(name), st.tuples(*arguments))


specs = st.sampled_from(
    [{"maxModelLength": 128}, {"maxModelLength": 256}, {"replicas": 0}, {"replicas": 1}, {"replicas": 3}, {"suspend": True},
     {"suspend": False}, AUTOSCALED, {"autoscaling": None}, {"rollout": {"strategy": "Recreate"}}, {"restart": "a"}]
)  # fmt: skip
children = st.sampled_from(
    ["Deployment", "Service", "ControllerRevision", "HorizontalPodAutoscaler", "PodDisruptionBudget", "Pod"]
)
acts = st.one_of(
    act("edit", specs),
    act("retune", st.sampled_from(["d2", "e5"]), st.sampled_from([None, "Passed", "Failed"])),
    act("deploy", st.booleans(), st.booleans()),
    act("pod", st.sampled_from([{}, NO_IMAGE]), st.booleans()),
    act("lose", children),
    act("tamper", st.just("evil")),
    act("configure", st.sampled_from(["registry/runtime:1", "registry/runtime:2"])),
    act("die"),
    act("wait", st.just(60)),
)
starts = st.sampled_from([{"model": TUNED_MODEL}, GATED, {"model": TUNED_MODEL, "replicas": 2, **AUTOSCALED}])
steady = settings(
    max_examples=int(os.environ.get("TUNESMITH_EXAMPLES", "30")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


OWNERS = frozenset({"edit", "retune"})
"""What asks for something else."""


@given(start=starts, story=st.lists(acts, max_size=12))
@steady
def test_whatever_happens_the_last_version_that_was_ready_is_not_lost(start: Raw, story: list[Any]) -> None:
    """And the plan comes to rest; what was tampered with is not served; and nothing is tried again that was given up."""
    life = Life(start)
    life.cluster.settle()
    for name, arguments in story:
        served, given_up = life.cluster.status.get("version"), life.cluster.status.get("rolledBack")
        getattr(life, name)(*arguments)
        life.cluster.settle(turns=12)
        check(life)
        known = f"support-{served}" in life.cluster.revisions
        if given_up and known and name not in OWNERS and life.cluster.deployments:
            assert version(life.cluster) != given_up["version"], "not tried again"


def check(life: Life) -> None:
    cluster, status = life.cluster, life.cluster.status
    if (served := status.get("version")) and served not in life.lost:
        assert f"support-{served}" in cluster.revisions
    for one in cluster.deployments.values():
        recorded = cluster.revisions[f"support-{version(cluster)}"]["data"]["template"]
        assert one["spec"]["template"] == recorded, "what is deployed is what was recorded"
    assert len(cluster.revisions) <= 3
    deleted = {key.kind for plan in cluster.plans for key in plan.delete}
    assert deleted <= {"ControllerRevision", "HorizontalPodAutoscaler", "PodDisruptionBudget"}
    assert status["observedGeneration"] == cluster.resource["metadata"]["generation"]
    assert ("rolledBack" in status) == (cluster.condition("RolledBack") != {})
    replicas = 0 if cluster.resource["spec"].get("suspend") else cluster.resource["spec"].get("replicas", 1)
    for one in cluster.deployments.values():
        assert one["spec"]["replicas"] == replicas
