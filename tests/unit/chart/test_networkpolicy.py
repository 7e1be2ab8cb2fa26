"""The opt-in NetworkPolicy of the operator admits exactly the traffic that the operator needs."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.unit.chart.conftest import Manifest, Render
from tests.unit.operator.plan.manifests import TEMPLATES
from tunesmith_operator.plan.config import OperatorConfig

MONITORING = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}


def policy(render: Render, **values: Any) -> Manifest:
    """The spec of the NetworkPolicy under some values."""
    settings = {"enabled": True, **values.pop("networkPolicy", {})}
    manifests = render(networkPolicy=settings, **values)
    (found,) = [manifest for manifest in manifests if manifest["kind"] == "NetworkPolicy"]
    spec: Manifest = found["spec"]
    return spec


def only(manifests: list[Manifest], kind: str) -> Manifest:
    (found,) = [manifest for manifest in manifests if manifest["kind"] == kind]
    return found


def test_the_policy_is_opt_in(render: Render) -> None:
    assert "NetworkPolicy" not in {manifest["kind"] for manifest in render()}


def test_the_policy_selects_the_operators_pods_and_denies_by_default(render: Render) -> None:
    spec = policy(render)
    labels = only(render(), "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert spec["podSelector"]["matchLabels"].items() <= labels.items()
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert all(rule["from"] for rule in spec["ingress"])


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_pods_of_every_kind_reach_the_progress_port(render: Render, name: str) -> None:
    progress, *others = policy(render)["ingress"]
    assert others == []
    manifests = render()
    ports = only(manifests, "Deployment")["spec"]["template"]["spec"]["containers"][0]["ports"]
    config = OperatorConfig.model_validate(yaml.safe_load(only(manifests, "ConfigMap")["data"]["config.yaml"]))
    opened = [port["containerPort"] for port in ports if port["name"] == progress["ports"][0]["port"]]
    assert opened == [config.http.progress_port]
    pods = progress["from"][0]
    assert pods["namespaceSelector"] == {}
    assert pods["podSelector"]["matchLabels"].items() <= TEMPLATES[name]["metadata"]["labels"].items()


def test_with_a_scope_no_pod_of_another_namespace_has_access(render: Render) -> None:
    pods = policy(render, scope={"namespaces": ["team-a", "team-b"]})["ingress"][0]["from"][0]
    expression = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["team-a", "team-b"]}
    assert pods["namespaceSelector"] == {"matchExpressions": [expression]}


def test_only_named_peers_read_metrics(render: Render) -> None:
    _, metrics = policy(render, networkPolicy={"metricsFrom": [MONITORING]})["ingress"]
    assert metrics == {"ports": [{"port": "health", "protocol": "TCP"}], "from": [MONITORING]}


def test_egress_is_dns_the_api_server_and_the_leader_only(render: Render) -> None:
    names, server, leader = policy(render, networkPolicy={"apiServer": {"cidrs": ["10.0.0.1/32"], "ports": [6443]}})[
        "egress"
    ]
    assert {port["port"] for port in names["ports"]} == {53}
    assert server == {"ports": [{"port": 6443, "protocol": "TCP"}], "to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}]}
    assert leader["ports"] == [{"port": 8082, "protocol": "TCP"}]
    assert leader["to"] == [{"podSelector": policy(render)["podSelector"]}]


def test_without_an_address_the_api_server_is_any_host_on_its_ports(render: Render) -> None:
    server = policy(render)["egress"][1]
    assert server == {"ports": [{"port": 443, "protocol": "TCP"}, {"port": 6443, "protocol": "TCP"}]}
