"""The plans' golden manifests before a real API server: it admits them, and what it fills in is no drift."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.apiserver.cluster import KINDS, Cluster
from tunesmith_operator.plan.drift import matches
from tunesmith_operator.plan.names import MANAGER
from tunesmith_operator.plan.types import Raw

GOLDENS = Path(__file__).parents[1] / "unit" / "operator" / "plan" / "goldens"
CHILDREN = {
    f"{path.stem}/{child['kind']}/{child['metadata']['name']}": child
    for path in sorted(GOLDENS.glob("*.yaml"))
    for child in yaml.safe_load_all(path.read_text())
}
WITH_PODS = [name for name, child in CHILDREN.items() if "template" in child["spec"]]


def applied(cluster: Cluster, child: Raw) -> Raw:
    """What server-side apply would make of `child`."""
    metadata = {**child["metadata"], "namespace": cluster.namespace}
    path = KINDS[child["kind"]].path(cluster.namespace, metadata["name"])
    query = {"dryRun": "All", "fieldManager": MANAGER, "fieldValidation": "Strict"}
    return cluster.request("PATCH", path, {**child, "metadata": metadata}, query, "application/apply-patch+yaml")


@pytest.mark.parametrize("name", CHILDREN)
def test_a_manifest_is_admitted_and_comes_back_without_drift(cluster: Cluster, name: str) -> None:
    child = {**CHILDREN[name], "metadata": {**CHILDREN[name]["metadata"], "namespace": cluster.namespace}}
    assert matches(applied(cluster, child), child)


@pytest.mark.parametrize("name", WITH_PODS)
def test_the_restricted_profile_admits_its_pods(cluster: Cluster, name: str) -> None:
    spec = {field: value for field, value in CHILDREN[name]["spec"]["template"]["spec"].items() if field not in NEEDS}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": spec}
    cluster.request("POST", KINDS["Pod"].path(cluster.namespace), pod, {"dryRun": "All"})


NEEDS = {"serviceAccountName", "priorityClassName", "runtimeClassName"}
"""What names another object, which the test's cluster does not have."""
