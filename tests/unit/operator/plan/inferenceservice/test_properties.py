"""Random lives of a service: the last ready version is never lost."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.unit.operator.plan.inferenceservice.support import (
    AUTOSCALED,
    GATED,
    LATE,
    NO_IMAGE,
    TUNED_MODEL,
    deployed,
    evaluated,
    retuned,
    serve_pod,
    version,
)
from tests.unit.operator.plan.world import CONFIG, Cluster, condition, inference_service, with_spec
from tunesmith_operator.plan.types import Raw, Reference


class Life:
    """A service and everything that its owner, the cluster and the operator may do."""

    def __init__(self, spec: Raw) -> None:
        self.cluster = Cluster(inference_service(**spec))
        self.lost: set[str] = set()
        """Versions whose record was deleted: only the deployed version is recorded again."""
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
        for deployment in self.cluster.deployments.values():
            deployment["spec"]["template"]["spec"]["containers"][0]["image"] = image
            deployment["metadata"]["generation"] += 1

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


children = st.sampled_from(
    ["Deployment", "Service", "ControllerRevision", "HorizontalPodAutoscaler", "PodDisruptionBudget", "Pod"]
)


def check(life: Life) -> None:
    cluster, status = life.cluster, life.cluster.status
    if (served := status.get("version")) and served not in life.lost:
        assert f"support-{served}" in cluster.revisions
    for deployment in cluster.deployments.values():
        recorded = cluster.revisions[f"support-{version(cluster)}"]["data"]["template"]
        assert deployment["spec"]["template"] == recorded, "the deployed template is the recorded template"
    assert len(cluster.revisions) <= 3
    deleted = {key.kind for plan in cluster.plans for key in plan.delete}
    assert deleted <= {"ControllerRevision", "HorizontalPodAutoscaler", "PodDisruptionBudget"}
    assert status["observedGeneration"] == cluster.resource["metadata"]["generation"]
    assert ("rolledBack" in status) == (cluster.condition("RolledBack") != {})
    replicas = 0 if cluster.resource["spec"].get("suspend") else cluster.resource["spec"].get("replicas", 1)
    for deployment in cluster.deployments.values():
        assert deployment["spec"]["replicas"] == replicas


specs = st.sampled_from(
    [{"maxModelLength": 128}, {"maxModelLength": 256}, {"replicas": 0}, {"replicas": 1}, {"replicas": 3}, {"suspend": True},
     {"suspend": False}, AUTOSCALED, {"autoscaling": None}, {"rollout": {"strategy": "Recreate"}}, {"restart": "a"}]
)  # fmt: skip


def act(name: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[str, tuple[Any, ...]]]:
    return st.tuples(st.just(name), st.tuples(*arguments))


OWNERS = frozenset({"edit", "retune"})
"""Acts that ask for another version."""


steady = settings(
    max_examples=examples(15),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


starts = st.sampled_from([{"model": TUNED_MODEL}, GATED, {"model": TUNED_MODEL, "replicas": 2, **AUTOSCALED}])


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


@given(start=starts, story=st.lists(acts, max_size=12))
@steady
def test_the_last_ready_version_is_never_lost(start: Raw, story: list[Any]) -> None:
    """The plan also comes to rest, no edited template is served, and no version that was given up is retried."""
    life = Life(start)
    life.cluster.settle()
    for name, arguments in story:
        served, given_up = life.cluster.status.get("version"), life.cluster.status.get("rolledBack")
        getattr(life, name)(*arguments)
        life.cluster.settle(turns=12)
        check(life)
        known = f"support-{served}" in life.cluster.revisions
        if given_up and known and name not in OWNERS and life.cluster.deployments:
            assert version(life.cluster) != given_up["version"], "not retried"
