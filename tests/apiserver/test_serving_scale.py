"""Whoever scales a service does it by its /scale: a person, an autoscaler of ours, or one of the user's own."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from tests.apiserver.cluster import Cluster, Raw
from tests.apiserver.metrics_api import metrics_api
from tests.apiserver.test_serving import change, conditions, node, serve, status

pytestmark = pytest.mark.usefixtures("operator")

AUTOSCALING: Raw = {"maxReplicas": 3, "targetCpuPercent": 50}


def replicas(cluster: Cluster, kind: str) -> int:
    found: int = (cluster.get(kind, "support") or {})["spec"]["replicas"]
    return found


def reason_is(cluster: Cluster, reason: str) -> bool:
    found: str = conditions(cluster)["AutoscalingActive"]["reason"]
    return found == reason


def from_git(cluster: Cluster, *flags: str, **spec: Any) -> None:
    """What a GitOps tool does again and again: apply the manifest, which leaves replicas out."""
    manifest = {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": "support", "namespace": cluster.namespace},
        "spec": {"model": {"uri": "s3://models/base"}, **spec},
    }
    cluster.kubectl("apply", *flags, "--filename", "-", stdin=json.dumps(manifest))


@pytest.mark.parametrize(
    "flags", [(), ("--server-side", "--field-manager=argocd-controller")], ids=["client-side", "server-side"]
)
def test_what_scale_says_is_not_undone_by_git_or_by_the_operator(cluster: Cluster, flags: tuple[str, ...]) -> None:
    with node(cluster):
        from_git(cluster, *flags)
        cluster.until_phase("InferenceService", "support", "Ready")
        cluster.kubectl(
            "--namespace", cluster.namespace, "scale", "inferenceservices.tunesmith.dev/support", "--replicas=3"
        )
        cluster.until("three pods are ready", lambda: status(cluster)["message"] == "3 of 3 pods are ready")
        from_git(cluster, *flags, maxModelLength=512)
        cluster.until_phase("InferenceService", "support", "RollingOut")
        cluster.until(
            "the new version",
            lambda: status(cluster)["message"] == "3 of 3 pods are ready" and "candidate" not in status(cluster),
        )
    assert (replicas(cluster, "InferenceService"), replicas(cluster, "Deployment")) == (3, 3)


def test_an_autoscaler_without_its_metric_is_reported_and_works_as_soon_as_it_has_it(cluster: Cluster) -> None:
    """By the real controller; its figures are a test's own, as no kubelet is here to measure any."""
    with node(cluster):
        serve(cluster, autoscaling=AUTOSCALING)
        # Before that it may not know our kind: the controller learns of kinds every 30 s.
        cluster.until(
            "the status reports the missing metric", partial(reason_is, cluster, "FailedGetResourceMetric"), seconds=90
        )
        assert "autoscaling does not work" in status(cluster)["message"]
        assert conditions(cluster)["Ready"]["status"] == "True"
        with metrics_api(cluster) as usage:
            usage.millicores = 490  # of 500 that a pod asks for, where half is aimed at
            cluster.until(
                "three pods are ready", lambda: status(cluster)["message"] == "3 of 3 pods are ready", seconds=120
            )
            cluster.until("all is well", lambda: conditions(cluster)["AutoscalingActive"]["status"] == "True")
            from_git(cluster, "--server-side", "--force-conflicts", autoscaling=AUTOSCALING)
            assert replicas(cluster, "InferenceService") == 3
            writers = {
                field["manager"]
                for field in (cluster.get("InferenceService", "support") or {})["metadata"]["managedFields"]
                if field.get("subresource") == "scale"
            }
            assert writers == {"kube-controller-manager"}


def test_an_autoscaler_of_the_users_own_works_by_the_same_scale(cluster: Cluster) -> None:
    target = {"apiVersion": "tunesmith.dev/v1alpha1", "kind": "InferenceService", "name": "support"}
    with node(cluster):
        serve(cluster)
        # Below what it may have least, an autoscaler scales up without any metric.
        spec = {"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 3}
        cluster.create({"kind": "HorizontalPodAutoscaler", "metadata": {"name": "support"}, "spec": spec})
        cluster.until("two pods are ready", lambda: status(cluster)["message"] == "2 of 2 pods are ready", seconds=90)
        assert (replicas(cluster, "InferenceService"), replicas(cluster, "Deployment")) == (2, 2)
        assert "AutoscalingActive" not in conditions(cluster), "it is not ours"
        change(cluster, maxModelLength=512)
        cluster.until_phase("InferenceService", "support", "RollingOut")
        cluster.until_phase("InferenceService", "support", "Ready")
        assert replicas(cluster, "Deployment") == 2
