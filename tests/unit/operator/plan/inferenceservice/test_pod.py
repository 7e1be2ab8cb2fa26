"""The pod template of a version."""

from __future__ import annotations

from tests.unit.operator.plan.inferenceservice.support import (
    ready,
    serving,
    template,
)
from tests.unit.operator.plan.world import (
    Cluster,
    inference_service,
    tuned,
)
from tunesmith_operator.plan.types import Reference


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


def test_only_the_engine_gets_the_api_key():
    cluster = Cluster(inference_service(apiKeySecret="chat-key"))
    cluster.settle()
    pod = cluster.deployments["support"]["spec"]["template"]["spec"]
    named = [
        container["name"]
        for container in [*pod["initContainers"], *pod["containers"]]
        for variable in container["env"]
        if variable["name"] == "TUNESMITH_API_KEY"
    ]
    assert named == ["serve"]


def test_pods_have_the_spec_s_time_to_finish_their_answers() -> None:
    assert template(serving())["spec"]["terminationGracePeriodSeconds"] == 120
    assert template(serving(drainSeconds=900))["spec"]["terminationGracePeriodSeconds"] == 900
