"""The command lines and files of the components."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from devcluster import cluster
from devcluster.components import addresses, services
from devcluster.components.control_plane import ControlPlaneSettings, apiserver
from devcluster.components.flags import flags
from devcluster.paths import Paths
from devcluster.pki import Authority
from devcluster.processes import Component

PATHS = Paths(Path("/cache"))
COMPONENTS = {stage.component.name: stage.component for stage in cluster.stages(PATHS, "access", "hush-hush")}


def option(component: Component, name: str) -> str:
    return next(word.partition("=")[2] for word in component.argv if word.startswith(f"--{name}="))


def config(component: Component, name: str) -> dict[str, Any]:
    return json.loads(next(text for path, text in component.files.items() if path.name == name))


def test_flags_are_rendered_as_go_reads_them() -> None:
    assert flags("program", {"leader-elect": False, "port": 1, "file": Path("/x")}) == (
        "program",
        "--leader-elect=false",
        "--port=1",
        "--file=/x",
    )


def test_a_component_starts_after_its_dependencies() -> None:
    order = list(COMPONENTS)
    needs = [
        ("etcd", "kube-apiserver"),
        ("kube-apiserver", "kube-controller-manager"),
        ("kube-apiserver", "kube-scheduler"),
        ("kube-apiserver", "coredns"),
        ("registry", "kubelet"),
        ("containerd", "kubelet"),
    ]
    assert all(order.index(first) < order.index(then) for first, then in needs)


def test_no_two_components_want_the_same_port() -> None:
    wanted = Counter(address for component in COMPONENTS.values() for address in component.ports)
    assert wanted.most_common(1)[0][1] == 1


def test_no_component_can_be_reached_from_other_machines() -> None:
    hosts = {host for component in COMPONENTS.values() for host, _ in component.ports}
    assert hosts == {addresses.LOOPBACK, addresses.HOST}


@pytest.mark.parametrize("component", COMPONENTS.values(), ids=lambda component: component.name)
def test_everything_that_a_component_writes_is_below_the_cluster_folder(component: Component) -> None:
    assert all(PATHS.cluster in path.parents for path in component.files)


def test_the_secret_key_of_the_s3_server_is_on_no_command_line_and_in_no_file() -> None:
    for component in COMPONENTS.values():
        assert "hush-hush" not in " ".join([*component.argv, *component.files.values()])
    assert COMPONENTS["s3"].environment["ROOT_SECRET_ACCESS_KEY"] == "hush-hush"


def test_admission_plugins_are_the_stock_set() -> None:
    assert not any("admission" in word for word in COMPONENTS["kube-apiserver"].argv)


def test_only_a_control_plane_that_pods_reach_publishes_its_endpoint() -> None:
    """Kubernetes 1.37 refuses to start with a loopback address as the endpoint."""
    settings = ControlPlaneSettings(Path("/state"), Authority(Path("/pki")), "10.96.0.0/16", 1, 2, 3, 4)
    unpublished = "--endpoint-reconciler-type=none"
    assert unpublished in apiserver(PATHS, settings).argv
    assert unpublished not in apiserver(PATHS, replace(settings, address="10.188.0.1")).argv


def test_the_pods_use_the_running_dns_server() -> None:
    kubelet = config(COMPONENTS["kubelet"], "kubelet.json")
    assert kubelet["clusterDNS"] == [addresses.HOST]
    assert f"bind {addresses.HOST}" in services.coredns(PATHS).files[PATHS.cluster / "Corefile"]


def test_the_clients_of_the_api_server_are_not_throttled() -> None:
    assert option(COMPONENTS["kube-controller-manager"], "kube-api-qps") == "500"
    scheduler = config(COMPONENTS["kube-scheduler"], "scheduler.json")
    assert scheduler["clientConnection"]["qps"] == 500


def test_the_server_certificate_covers_every_address_of_the_servers() -> None:
    assert {addresses.HOST, addresses.LOOPBACK, addresses.FIRST_SERVICE} <= set(cluster.SERVER_NAMES)
