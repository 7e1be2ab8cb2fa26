"""One real control plane for the whole tier, a namespace for each test, and operators that run as the ServiceAccount."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import urllib3

from devcluster.controlplane import AUDIT_EVERYTHING, ControlPlane
from tests.apiserver.chart import RELEASE, VALUES, render, without_workloads
from tests.apiserver.cluster import NODE, Cluster, administrator, namespaces
from tests.apiserver.operator_process import OperatorProcess

NAMES = namespaces()

StartOperator = Callable[..., OperatorProcess]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.apiserver)


@pytest.fixture(scope="session")
def plane() -> Iterator[ControlPlane]:
    """Control plane with all of the chart but its pods."""
    with ControlPlane(audit_policy=AUDIT_EVERYTHING) as plane:
        cluster = Cluster(plane, administrator(plane), "default")
        cluster.kubectl("apply", "--filename", "-", stdin=without_workloads(render(plane, VALUES)))
        cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "customresourcedefinitions", "--all")
        # Pods on a node that is not there would be removed after 40 s.
        cluster.request("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
        yield plane


@pytest.fixture(scope="session")
def http(plane: ControlPlane) -> urllib3.PoolManager:
    return administrator(plane)


@pytest.fixture
def cluster(plane: ControlPlane, http: urllib3.PoolManager) -> Iterator[Cluster]:
    """A namespace of one's own, in which only pods that the restricted profile admits can be."""
    cluster = Cluster(plane, http, next(NAMES))
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": cluster.namespace, "labels": labels}}
    cluster.request("POST", "/api/v1/namespaces", namespace)
    yield cluster
    cluster.request("DELETE", f"/api/v1/namespaces/{cluster.namespace}")


@contextmanager
def operators(plane: ControlPlane, folder: Path) -> Iterator[StartOperator]:
    """Starts replicas, waits until they are ready, and ends them at last. A bad log is a failure."""
    started: list[OperatorProcess] = []
    waiter = Cluster(plane, urllib3.PoolManager(), "")

    def start(name: str = "operator-0", release: str = RELEASE, **values: Any) -> OperatorProcess:
        operator = OperatorProcess(plane, folder, name, release, values)
        operator.start()
        started.append(operator)
        waiter.until("the operator is ready", lambda: operator.probe("/readyz")[0] == 200, seconds=60)
        return operator

    try:
        yield start
    finally:
        for operator in started:
            operator.stop()
    complaints = [complaint for operator in started for complaint in operator.complaints()]
    assert not complaints, json.dumps(complaints, indent=2)


@pytest.fixture
def start_operator(plane: ControlPlane, tmp_path: Path) -> Iterator[StartOperator]:
    """For tests of the operator's own life."""
    with operators(plane, tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def operator(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """An operator that leads, the same for all tests of a module."""
    with operators(plane, tmp_path_factory.mktemp("operator")) as start:
        operator = start()
        Cluster(plane, urllib3.PoolManager(), "").until("the operator leads", operator.leads)
        yield operator
