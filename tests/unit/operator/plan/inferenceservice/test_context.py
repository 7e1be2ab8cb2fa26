"""The context of a decision about a service: whether it answers, and whether the requested version is served."""

from __future__ import annotations

from tests.unit.operator.plan.inferenceservice.support import deployed, ready
from tests.unit.operator.plan.world import CONFIG, Cluster, inference_service
from tunesmith_api.inferenceservice import InferenceServiceSpec
from tunesmith_operator.plan.inferenceservice.context import ServiceContext
from tunesmith_operator.plan.inferenceservice.rollout import read_rollout
from tunesmith_operator.plan.inferenceservice.version_choice import choose_version
from tunesmith_operator.plan.inferenceservice.versions import read_versions
from tunesmith_operator.plan.spec.references import Refused
from tunesmith_operator.plan.spec.validate import parse_spec


def context(cluster: Cluster) -> ServiceContext:
    resource, observed = cluster.resource, cluster.observed()
    spec = parse_spec(InferenceServiceSpec, resource)
    assert not isinstance(spec, Refused)
    versions = read_versions(observed, (resource.get("status") or {}).get("version"))
    target = choose_version(resource, spec, observed.references, versions, CONFIG)
    rollout = read_rollout(observed, target.template, spec, False, cluster.now)
    return ServiceContext(resource, spec, observed, versions, target, rollout, None, None)


def settled(**spec: object) -> Cluster:
    cluster = Cluster(inference_service(**spec))
    cluster.settle()
    return cluster


def test_a_version_that_was_never_ready_does_not_answer_before_all_of_its_pods_are_ready() -> None:
    cluster = settled(replicas=2)
    deployed(cluster, replicas=2, readyReplicas=1, updatedReplicas=2)
    assert (context(cluster).is_answering, context(cluster).is_served) == (False, False)
    ready(cluster)
    assert (context(cluster).is_answering, context(cluster).is_served) == (True, True)


def test_a_version_that_was_ready_once_answers_with_one_ready_pod() -> None:
    cluster = settled(replicas=2)
    ready(cluster)
    deployed(cluster, replicas=2, readyReplicas=1, updatedReplicas=2)
    assert (context(cluster).is_answering, context(cluster).is_served) == (True, False)


def test_without_a_desired_pod_no_version_is_served() -> None:
    cluster = settled(replicas=0)
    deployed(cluster, replicas=0, readyReplicas=0, updatedReplicas=0)
    assert not context(cluster).is_served
