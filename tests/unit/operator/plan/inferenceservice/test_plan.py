"""The children of an InferenceService."""

from __future__ import annotations

import pytest

from tests.unit.operator.plan.inferenceservice.support import AUTOSCALED, change, ready, serving, template, upgrade
from tests.unit.operator.plan.world import (
    Cluster,
    inference_service,
    with_spec,
)
from tunesmith_operator.plan import KINDS
from tunesmith_operator.plan.types import Key


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


def test_defaults_of_the_api_server_cause_no_write():
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
    assert [manifest["kind"] for manifest in cluster.reconcile().apply] == ["Deployment"]
    assert cluster.reconcile().apply == ()


def test_a_deleted_service_is_created_again():
    cluster = Cluster(inference_service())
    cluster.settle()
    cluster.services.clear()
    assert [manifest["kind"] for manifest in cluster.reconcile().apply] == ["Service"]


def test_an_empty_variable_causes_no_endless_writes():
    cluster = Cluster(inference_service(pod={"env": [{"name": "EMPTY", "value": ""}], "tolerations": [{"value": ""}]}))
    cluster.settle()
    pod = cluster.deployments["support"]["spec"]["template"]["spec"]
    assert {"name": "EMPTY"} in pod["containers"][0]["env"]
    del pod["tolerations"][0]["value"]
    assert cluster.reconcile().apply == ()


def test_it_waits_for_the_deletion_of_a_former_resources_deployment():
    cluster = Cluster(inference_service())
    cluster.foreign |= {Key("Deployment", "support"), Key("Service", "support")}
    cluster.former |= cluster.foreign
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Waiting", "Stopping")
    cluster.former.remove(Key("Service", "support"))
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Failed", "NameConflict")


@pytest.mark.parametrize("kind", ["Deployment", "Service"])
def test_a_foreign_object_with_the_name_is_left_alone(kind):
    cluster = Cluster(inference_service())
    cluster.foreign.add(Key(kind, "support"))
    cluster.settle()
    assert (cluster.deployments, cluster.services) == ({}, {})
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Failed", "NameConflict")
    cluster.foreign.clear()
    cluster.settle()
    assert "support" in cluster.deployments


def test_a_service_that_is_being_deleted_gets_no_children():
    cluster = Cluster(inference_service())
    cluster.resource["metadata"]["deletionTimestamp"] = "2026-11-22T12:00:00Z"
    assert cluster.reconcile().is_empty


def test_a_rejected_deployment_is_reported_and_retried_later():
    cluster = Cluster(inference_service())
    cluster.refused[Key("Deployment", "support")] = 'deployments.apps "support" is forbidden: exceeded quota: x'
    cluster.settle()
    assert "support" not in cluster.deployments
    assert cluster.status["lastFailure"]["class"] == "QuotaExceeded"
    assert cluster.plans[-1].requeue_after == pytest.approx(30)


@pytest.mark.parametrize("field", ["image", "version", "run"])
def test_an_edit_by_hand_is_repaired_from_the_record(field: str) -> None:
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


def test_optional_children_are_read_only_where_they_may_exist() -> None:
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
def test_an_edited_or_deleted_child_is_repaired_and_nothing_else_written(kind: str, how: str) -> None:
    cluster = serving(replicas=2, **AUTOSCALED)
    shelf = cluster.shelf(kind)
    if how == "deleted":
        shelf.clear()
    else:
        shelf["support"]["metadata"]["labels"].clear()
    assert [manifest["kind"] for manifest in cluster.reconcile().apply] == [kind]
    assert cluster.reconcile().apply == ()
