"""Where operators under test may work: in the whole cluster, or by Roles in the test's namespaces only.

The tier runs in the second way with TUNESMITH_TEST_SCOPE=namespaces. The chart then renders no ClusterRole for anybody.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from devcluster.standalone import ControlPlane
from tests.apiserver.chart import NAMESPACE, render, without_workloads
from tests.apiserver.cluster import Cluster, administrator

NAMESPACED = os.environ.get("TUNESMITH_TEST_SCOPE") == "namespaces"
IN_SCOPE = "tests.tunesmith.dev/in-scope"
"""Label of the namespaces that an operator works in which is started now."""
HOME = {"scope": {"namespaces": [NAMESPACE]}} if NAMESPACED else {}
"""Values with which the tier's chart is installed before there is any test."""
LABELS = {"pod-security.kubernetes.io/enforce": "restricted", **({IN_SCOPE: "true"} if NAMESPACED else {})}
"""Labels of a test's namespace: only pods that the restricted profile admits can be in it."""


def in_scope(plane: ControlPlane, values: Mapping[str, Any], release: str) -> Mapping[str, Any]:
    """`values` for an operator that is started now, with its Roles there; as they are where the whole cluster is its."""
    if not NAMESPACED or "scope" in values:
        return values
    cluster = Cluster(plane, administrator(plane), "")
    found = cluster.request("GET", "/api/v1/namespaces", query={"labelSelector": IN_SCOPE})["items"]
    names = [namespace["metadata"]["name"] for namespace in found]
    scoped = {**values, "scope": {"namespaces": [NAMESPACE, *names]}, "crds": {"enabled": False}}
    cluster.kubectl("apply", "--filename", "-", stdin=without_workloads(render(plane, scoped, release)))
    return scoped


def leave(cluster: Cluster) -> None:
    """End a test in its namespace. A namespace that goes takes the Role with it, without which an operator ends."""
    if not NAMESPACED:
        cluster.request("DELETE", f"/api/v1/namespaces/{cluster.namespace}")
        return
    for plural in ("finetunejobs", "evaljobs", "inferenceservices"):
        cluster.request("DELETE", f"/apis/tunesmith.dev/v1alpha1/namespaces/{cluster.namespace}/{plural}")
    patch = {"metadata": {"labels": {IN_SCOPE: None}}}
    path = f"/api/v1/namespaces/{cluster.namespace}"
    cluster.request("PATCH", path, patch, content_type="application/merge-patch+json")
