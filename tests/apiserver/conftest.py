"""One real control plane for the whole tier, a namespace for each test, and operators that run as the ServiceAccount."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import urllib3

from devcluster.standalone import AUDIT_EVERYTHING, ControlPlane
from tests.apiserver.chart import RELEASE, VALUES, render, without_workloads
from tests.apiserver.cluster import NODE, Cluster, administrator, namespaces
from tests.apiserver.operator_process import OperatorProcess
from tests.apiserver.scope import HOME, LABELS, NAMESPACED, leave
from tests.established import until_established

NAMES = namespaces()

StartOperator = Callable[..., OperatorProcess]

LAST = "test_rights.py"
"""Compares what was granted with what all tests before it have used."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ours = [index for index, item in enumerate(items) if Path(__file__).parent in item.path.parents]
    ordered = sorted((items[index] for index in ours), key=lambda item: item.path.name == LAST)
    for index, item in zip(ours, ordered, strict=True):
        item.add_marker(pytest.mark.apiserver)
        items[index] = item


@pytest.fixture(scope="session")
def plane() -> Iterator[ControlPlane]:
    """Control plane with all of the chart but its pods, as strict about owner references as OpenShift's is."""
    options = {"enable-admission-plugins": "OwnerReferencesPermissionEnforcement"}
    # The stock 15 s would be what tests of autoscaling wait for.
    managers = {"horizontal-pod-autoscaler-sync-period": "2s"}
    with ControlPlane(
        audit_policy=AUDIT_EVERYTHING, apiserver_options=options, controller_manager_options=managers
    ) as plane:
        cluster = Cluster(plane, administrator(plane), "default")
        cluster.kubectl("apply", "--filename", "-", stdin=without_workloads(render(plane, {**VALUES, **HOME})))
        until_established(cluster.kubectl, "customresourcedefinitions", "--all")
        # Pods on a node that is not there would be removed after 40 s.
        cluster.request("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
        yield plane


@pytest.fixture(scope="session")
def http(plane: ControlPlane) -> urllib3.PoolManager:
    return administrator(plane)


def make_namespace(cluster: Cluster) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": cluster.namespace, "labels": LABELS}}
    cluster.request("POST", "/api/v1/namespaces", namespace)


@pytest.fixture(scope="session")
def spare() -> deque[str]:
    """Namespaces that were made before the operator that works in them, as Roles in them must be."""
    return deque()


@pytest.fixture
def cluster(
    request: pytest.FixtureRequest, plane: ControlPlane, http: urllib3.PoolManager, spare: deque[str]
) -> Iterator[Cluster]:
    """A namespace for one test."""
    if spare and "operator" in request.fixturenames:
        cluster = Cluster(plane, http, spare.popleft())
    else:
        cluster = Cluster(plane, http, next(NAMES))
        make_namespace(cluster)
    yield cluster
    leave(cluster)


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
def start_operator(plane: ControlPlane, tmp_path: Path, cluster: Cluster) -> Iterator[StartOperator]:
    """For tests of the operator's own life; `cluster` is there before it."""
    with operators(plane, tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def operator(
    request: pytest.FixtureRequest,
    plane: ControlPlane,
    http: urllib3.PoolManager,
    spare: deque[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[OperatorProcess]:
    """An operator that leads, the same for all tests of a module."""
    if NAMESPACED:
        tests = [item for item in request.session.items if item.path == request.path]
        for _ in [test for test in tests if "operator" in getattr(test, "fixturenames", ())]:
            spare.append(next(NAMES))
            make_namespace(Cluster(plane, http, spare[-1]))
    with operators(plane, tmp_path_factory.mktemp("operator")) as start:
        operator = start()
        Cluster(plane, urllib3.PoolManager(), "").until("the operator leads", operator.leads)
        yield operator
    while spare:
        leave(Cluster(plane, http, spare.popleft()))
