"""What the chart grants the operator is what it uses: granted by the rendered roles, used by the API server's audit log.

Runs after all other tests of the tier, on what they have made the operator do; `life` alone uses every right once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from devcluster.standalone import ControlPlane
from tests.apiserver.chart import NAMESPACE, VALUES, render
from tests.apiserver.cluster import Cluster, Kubelet, Raw
from tests.apiserver.conftest import StartOperator
from tests.apiserver.finetunejobs import SPEC, started, tune
from tests.apiserver.operator_process import USER
from tests.apiserver.scope import HOME, NAMESPACED


class Right(NamedTuple):
    """One verb on one resource, as RBAC writes them."""

    group: str
    resource: str
    verb: str

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{f'.{self.group}' if self.group else ''}"


OURS = ("finetunejobs", "evaljobs", "inferenceservices")
NEVER_ASKED: dict[Right, str] = {
    Right("tunesmith.dev", f"{plural}/finalizers", "update"): (
        "no request of its own: the admission plugin OwnerReferencesPermissionEnforcement, which is on in this tier, "
        "asks for it when a child names its owner with blockOwnerDeletion"
    )
    for plural in OURS
}
"""Granted, and not to be found in an audit log; each with the reason."""
OPTIONAL: dict[str, tuple[Raw, frozenset[Right]]] = {
    "kueue.enabled": ({"kueue": {"enabled": True}}, frozenset({Right("kueue.x-k8s.io", "workloads", "list")})),
}
"""By name of a value of the chart: the values that switch a feature on, and the rights that come with it. That
`kueue.enabled` uses its own is tested where there is a Kueue, in test_queueing.py.
"""
FORBIDDEN_RESOURCES = frozenset(
    {"*", "secrets", "configmaps", "serviceaccounts", "serviceaccounts/token", "pods/exec", "pods/attach", "pods/log"}
    | {"pods/portforward", "pods/ephemeralcontainers", "nodes", "namespaces", "persistentvolumeclaims", "roles"}
    | {"rolebindings", "clusterroles", "clusterrolebindings", "tokenreviews", "customresourcedefinitions"}
)
FORBIDDEN_VERBS = frozenset({"*", "escalate", "bind", "impersonate", "deletecollection"})


def operator_rules(manifests: list[Raw]) -> Iterator[Raw]:
    """The rules of every role that is bound to the operator's ServiceAccount."""
    bound = {
        manifest["roleRef"]["name"]
        for manifest in manifests
        if manifest["kind"] in ("RoleBinding", "ClusterRoleBinding")
    }
    for manifest in manifests:
        if manifest["kind"] in ("Role", "ClusterRole") and manifest["metadata"]["name"] in bound:
            yield from manifest["rules"]


def granted(manifests: list[Raw]) -> frozenset[Right]:
    return frozenset(
        Right(group, resource, verb)
        for rule in operator_rules(manifests)
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    )


def requests(plane: ControlPlane, user: str = USER) -> list[Raw]:
    """Audit events of the operator's requests about resources, of all tests so far."""
    with plane.audit_log.open() as log:
        entries = [json.loads(line) for line in log if user in line and line.endswith("\n")]
    return [entry for entry in entries if entry["user"]["username"] == user and "objectRef" in entry]


def in_vain(asked: list[Raw]) -> list[str]:
    """The refused requests, but for those that preceded the propagation of the role."""
    forbidden, allowed = (
        {f"{entry['verb']} {entry['requestURI']}" for entry in asked if is_forbidden(entry) is refused}
        for refused in (True, False)
    )
    return sorted(forbidden - allowed)


def used(entry: Raw) -> Iterator[Right]:
    """The rights that a request that was answered has used. An apply that makes the object needs two."""
    target = entry["objectRef"]
    resource = "/".join(filter(None, (target["resource"], target.get("subresource"))))
    right = Right(target.get("apiGroup", ""), resource, entry["verb"])
    yield right
    if entry["verb"] == "patch" and entry.get("responseStatus", {}).get("code") == 201:
        yield right._replace(verb="create")


def is_forbidden(entry: Raw) -> bool:
    """Refused for want of a right, and not by a quota or the like."""
    decision: Any = entry.get("annotations", {}).get("authorization.k8s.io/decision")
    return bool(decision == "forbid")


@pytest.fixture(scope="module")
def manifests(plane: ControlPlane) -> list[Raw]:
    """The chart as this tier has installed it."""
    return render(plane, {**VALUES, **HOME})


@pytest.fixture
def life(plane: ControlPlane, cluster: Cluster, start_operator: StartOperator) -> ControlPlane:
    """A life in which every right is used."""
    operator = start_operator()
    cluster.until("the operator leads", operator.leads)
    serve(cluster)
    train_together(cluster)
    suspend_and_lose(cluster)
    starve(cluster)
    time.sleep(1)  # for the Events of the last transition
    return plane


def serve(cluster: Cluster) -> None:
    """A service with all that goes with one: made, put right, rolled out, and taken away again."""
    spec = {"model": SPEC["model"], "replicas": 2, "autoscaling": {"minReplicas": 2, "maxReplicas": 3}}
    cluster.create({"kind": "InferenceService", "metadata": {"name": "chat"}, "spec": spec})
    for kind, drift in DRIFTS.items():
        made = cluster.until(f"the {kind}", lambda kind=kind: cluster.get(kind, "chat"))  # type: ignore[misc]
        cluster.patch(kind, "chat", {"spec": drift})
        cluster.until(f"the {kind} as it was", lambda kind=kind, made=made: is_as(cluster.get(kind, "chat"), made))  # type: ignore[misc]
    first = cluster.until("its record", lambda: cluster.find("ControllerRevision"))[0]["metadata"]["name"]
    for length in (128, 256):
        cluster.patch("InferenceService", "chat", {"spec": {"maxModelLength": length}})
    cluster.until_gone("ControllerRevision", first)
    cluster.delete("ControllerRevision", cluster.find("ControllerRevision")[0]["metadata"]["name"])
    cluster.patch("InferenceService", "chat", {"spec": {"autoscaling": None, "replicas": 1}})
    cluster.until_gone("HorizontalPodAutoscaler", "chat")
    cluster.until_gone("PodDisruptionBudget", "chat")


DRIFTS: dict[str, Raw] = {
    "Deployment": {"replicas": 5},
    "Service": {"ports": [{"name": "http", "port": 81, "targetPort": 8000}]},
    "HorizontalPodAutoscaler": {"maxReplicas": 9},
    "PodDisruptionBudget": {"maxUnavailable": 2},
}


def is_as(now: Raw | None, before: Raw) -> bool:
    """Whether what was changed by hand is as it was made."""
    changed = DRIFTS[before["kind"]]
    return now is not None and all(now["spec"].get(name) == before["spec"].get(name) for name in changed)


def train_together(cluster: Cluster) -> None:
    """Pods with a Service between them, which goes with them when their time to live is over."""
    tune(cluster, "world", parallelism={"nodes": 2}, retries=0, ttlAfterFinished="1s")
    kubelet = Kubelet(cluster, cluster.pod_of("world-tune-1"))
    kubelet.bind()
    kubelet.ends({}, {"train": {"exitCode": 1}})
    cluster.until_phase("FineTuneJob", "world", "Failed")
    cluster.until("its Service is gone", lambda: not cluster.find("Service", "tunesmith.dev/name=world"))


def suspend_and_lose(cluster: Cluster) -> None:
    """Attempts that are stopped, and one whose Job somebody else deletes."""
    for name in ("stopped", "lost"):
        kubelet = started(cluster, name)
        kubelet.runs("train")
        cluster.until_phase("FineTuneJob", name, "Running")
    cluster.patch("FineTuneJob", "stopped", {"spec": {"suspend": True}})
    cluster.until_gone("Job", "stopped-tune-1")
    cluster.delete("Job", "lost-tune-1")
    cluster.until("it was looked for", lambda: "get jobs/lost-tune-1" in cluster.requests(USER, "get"))


def starve(cluster: Cluster) -> None:
    """A Job without pods, whose reason only Events have."""
    cluster.create({"kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}})
    cluster.create({"kind": "EvalJob", "metadata": {"name": "words"}, "spec": EVALUATION})
    cluster.until("its Events were read", lambda: "list events/" in cluster.requests(USER, "list"), seconds=90)


EVALUATION: Raw = {
    "model": SPEC["model"],
    "benchmarks": [{"name": "words", "dataset": {"uri": "s3://data/test.jsonl"}}],
}


def test_every_right_that_the_chart_grants_is_used_and_none_beyond(life: ControlPlane, manifests: list[Raw]) -> None:
    """In all tests of the tier. A right that is lacking would be met by an error and a retry for ever."""
    asked = requests(life)
    assert in_vain(asked) == []
    seen = {right for entry in asked for right in used(entry)}
    has = granted(manifests)
    assert sorted(map(str, seen - has)) == [], "used, and not granted by the chart"
    unused = has - seen
    assert sorted(map(str, unused - NEVER_ASKED.keys())) == [], "granted and never used: take it out of the chart"
    assert sorted(map(str, NEVER_ASKED.keys() - unused)) == [], "used, or not granted: take it out of NEVER_ASKED"


def test_without_the_right_to_set_finalizers_the_plugin_refuses_the_children(
    plane: ControlPlane, cluster: Cluster
) -> None:
    """That the rights in NEVER_ASKED are needed nevertheless."""
    account = f"system:serviceaccount:{cluster.namespace}:default"
    rules = [
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create"]},
        {"apiGroups": ["tunesmith.dev"], "resources": ["finetunejobs"], "verbs": ["get"]},
    ]
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "maker"}, "rules": rules}
    cluster.kubectl("apply", "--namespace", cluster.namespace, "--filename", "-", stdin=json.dumps(role))
    binding = ("create", "rolebinding", "maker", "--role=maker", f"--serviceaccount={cluster.namespace}:default")
    cluster.kubectl(*binding, "--namespace", cluster.namespace)
    owner = tune(cluster, "owner")
    reference = {"apiVersion": owner["apiVersion"], "kind": "FineTuneJob", "name": "owner", "controller": True}
    reference |= {"uid": owner["metadata"]["uid"], "blockOwnerDeletion": True}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "child", "namespace": cluster.namespace, "ownerReferences": [reference]},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}},
    }
    command = ("create", "--dry-run=server", "--as", account, "--filename", "-")

    def refused_for_the_finalizers() -> bool:
        with pytest.raises(AssertionError) as error:
            cluster.kubectl(*command, stdin=json.dumps(job))
        return "finalizers" in str(error.value)  # and not for the role that does not count yet

    cluster.until("the refusal", refused_for_the_finalizers)


@pytest.mark.parametrize("values", [{}, {"scope": {"namespaces": ["team-a"]}}], ids=["whole cluster", "namespaces"])
def test_no_role_has_a_wildcard_or_a_way_to_more_rights(plane: ControlPlane, values: Raw) -> None:
    switched_on = [values, *({**values, **switch} for switch, _ in OPTIONAL.values())]
    for rendered in (render(plane, {**VALUES, **each}) for each in switched_on):
        for right in granted(rendered):
            assert right.resource not in FORBIDDEN_RESOURCES, right
            assert right.verb not in FORBIDDEN_VERBS, right
            assert right.group != "*", right
            assert right.group != "rbac.authorization.k8s.io", right
        writes = {right.resource for right in granted(rendered) if right.verb not in ("get", "list", "watch")}
        assert not {"pods", "replicasets"} & writes


def test_the_rights_in_namespaces_are_roles_and_the_same(plane: ControlPlane) -> None:
    whole = render(plane, VALUES)
    scoped = render(plane, {**VALUES, "scope": {"namespaces": ["team-a"]}})
    assert granted(whole) == granted(scoped)
    assert not [manifest["kind"] for manifest in scoped if manifest["kind"].startswith("Cluster")]


@pytest.mark.parametrize("name", OPTIONAL)
def test_an_optional_feature_adds_its_rights_and_no_others(plane: ControlPlane, name: str) -> None:
    values, rights = OPTIONAL[name]
    assert granted(render(plane, {**VALUES, **values})) - granted(render(plane, VALUES)) == rights


def test_the_tier_runs_with_the_rights_that_it_says(plane: ControlPlane, http: Any) -> None:
    """In namespaces, nobody has bound the operator to anything in the cluster as a whole."""
    cluster = Cluster(plane, http, NAMESPACE)
    bindings = cluster.request("GET", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings")["items"]
    account = USER.rpartition(":")[2]
    subjects = [subject for binding in bindings for subject in binding.get("subjects") or ()]
    bound = any(subject.get("namespace") == NAMESPACE and subject["name"] == account for subject in subjects)
    assert bound is not NAMESPACED
