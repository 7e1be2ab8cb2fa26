"""Status fields of an InferenceService."""

from __future__ import annotations

from tests.unit.operator.plan.inferenceservice.support import (
    deployed,
    ready,
    serve_pod,
)
from tests.unit.operator.plan.world import (
    Cluster,
    ended,
    inference_service,
    report,
    running,
)


def test_the_selector_names_the_pods_for_autoscalers():
    cluster = Cluster(inference_service())
    cluster.settle()
    labels = cluster.deployments["support"]["spec"]["template"]["metadata"]["labels"]
    pairs = dict(pair.split("=") for pair in cluster.status["selector"].split(","))
    assert pairs.items() <= labels.items()


def test_status_counts_all_pods_for_autoscalers():
    cluster = Cluster(inference_service(replicas=3))
    cluster.settle()
    deployed(cluster, replicas=3, readyReplicas=1, updatedReplicas=3)
    cluster.settle()
    assert (cluster.status["replicas"], cluster.status["readyReplicas"]) == (3, 1)
    assert cluster.status["message"] == "1 of 3 pods are ready"


def test_the_digest_is_that_which_the_pods_have_read():
    cluster = Cluster(inference_service(model={"uri": "hf://a/b"}))
    cluster.settle()
    payload = report("fetch", modelUri="s3://store/models/1", modelDigest="d9")
    serve_pod(cluster, {"fetch": {"state": ended(message=payload)}, "serve": {"state": running()}})
    ready(cluster)
    assert cluster.status["model"] == {"uri": "s3://store/models/1", "digest": "d9"}
