"""Every value of the chart has an effect, a test, and a row on the page of values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.chart.conftest import CHART, SCHEMA, Render
from tunesmith_operator.plan.config import OperatorConfig

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "chart-values.md"
NEEDS: dict[str, dict[str, Any]] = {
    "store.caBundle.key": {"store.caBundle.name": "ca"},
    "cache.maxBytes": {"cache.claim": "models"},
    "crds.keep": {"crds.enabled": True},
    "networkPolicy.metricsFrom": {"networkPolicy.enabled": True},
    "networkPolicy.apiServer.cidrs": {"networkPolicy.enabled": True},
    "networkPolicy.apiServer.ports": {"networkPolicy.enabled": True},
    "monitoring.podMonitor.interval": {"monitoring.podMonitor.enabled": True},
    "monitoring.podMonitor.labels": {"monitoring.podMonitor.enabled": True},
    "monitoring.serviceMonitor.interval": {"monitoring.serviceMonitor.enabled": True},
    "monitoring.serviceMonitor.labels": {"monitoring.serviceMonitor.enabled": True},
    "monitoring.rules.labels": {"monitoring.rules.enabled": True},
    "monitoring.rules.runbookUrl": {"monitoring.rules.enabled": True},
    "monitoring.dashboards.labels": {"monitoring.dashboards.enabled": True},
    "monitoring.dashboards.annotations": {"monitoring.dashboards.enabled": True},
}
"""Values that must be set for another value to have an effect."""
HAS_A: dict[str, Any] = {"matchExpressions": [{"key": "a", "operator": "Exists"}]}
OTHERS: dict[str, Any] = {
    "images.operator": "registry/operator:1",
    "images.pullPolicy": "Always",
    **{f"accelerators.{vendor}.resource": "example.com/device" for vendor in ("nvidia", "ascend", "amd")},
    **{f"accelerators.{vendor}.groups": [44, 109] for vendor in ("nvidia", "ascend", "amd")},
    **{f"accelerators.{vendor}.env": {"NCCL_SOCKET_IFNAME": "net1", "A": ""} for vendor in ("nvidia", "ascend", "amd")},
    "store.uri": "s3://other",
    "store.endpoint": "https://minio:9000",
    "store.pathStyle": False,
    "cache.hostPath": "/var/cache/models",
    "cache.maxBytes": "200Gi",
    "hub.order": ["modelscope", "huggingface"],
    "hub.endpoints.huggingface": ["https://mirror.example", "https://huggingface.co"],
    "hub.endpoints.modelscope": ["http://mirror:8080/ms"],
    "scope.namespaces": ["team-a"],
    "leaderElection.leaseSeconds": 60,
    "leaderElection.renewSeconds": 12,
    "resources.requests.cpu": "7",
    "resources.requests.memory": "7Gi",
    "resources.limits.cpu": "7",
    "resources.limits.memory": "7Gi",
    "tolerations": [{"key": "a", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [HAS_A]}}},
    "networkPolicy.metricsFrom": [{"namespaceSelector": {"matchLabels": {"team": "a"}}}],
    "networkPolicy.apiServer.cidrs": ["10.0.0.1/32"],
    "monitoring.podMonitor.interval": "7s",
    "monitoring.serviceMonitor.interval": "7s",
    "monitoring.rules.runbookUrl": "https://wiki.example.com/runbooks",
}
"""Values for settings that are no string, number or boolean."""


def leaves(schema: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, below in schema["properties"].items():
        if "properties" in below:
            yield from leaves(below, f"{prefix}{name}.")
        elif name != "global":
            yield f"{prefix}{name}", below


LEAVES = dict(leaves(SCHEMA))


def another(path: str) -> Any:
    """A value that is not the default."""
    default = LEAVES[path]["default"]
    if path in OTHERS:
        return OTHERS[path]
    if isinstance(default, bool):
        return not default
    if isinstance(default, int | float):
        return default + 1
    if isinstance(default, list):
        return [443] if LEAVES[path]["items"].get("type") == "integer" else [*default, "other"]
    return (
        {**default, "other": "o"} if isinstance(default, dict) else f"{default}7" if default[-1:].isdigit() else "other"
    )


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """Values by dotted path in Helm's form."""
    values: dict[str, Any] = {}
    for path, value in flat.items():
        *folders, name = path.split(".")
        place = values
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = value
    return values


@pytest.mark.parametrize("path", LEAVES)
def test_every_value_has_an_effect(render: Render, path: str) -> None:
    base = {"crds.enabled": False, **NEEDS.get(path, {})}
    assert another(path) != LEAVES[path]["default"]
    changed = {"crds.enabled": True} if path == "crds.enabled" else {**base, path: another(path)}
    assert render(**nested(changed)) != render(**nested(base))


POD = "spec.template.spec"
PLACES: dict[str, tuple[str, str, Any]] = {
    "images.operator": ("Deployment", f"{POD}.containers.0.image", "registry/operator:1"),
    "images.pullPolicy": ("Deployment", f"{POD}.containers.0.imagePullPolicy", "Always"),
    "images.pullSecrets": ("Deployment", f"{POD}.imagePullSecrets", [{"name": "other"}]),
    "networkPolicy.enabled": ("NetworkPolicy", "metadata.name", "tunesmith-operator"),
    "networkPolicy.metricsFrom": ("NetworkPolicy", "spec.ingress.1.from", OTHERS["networkPolicy.metricsFrom"]),
    "networkPolicy.apiServer.cidrs": ("NetworkPolicy", "spec.egress.1.to", [{"ipBlock": {"cidr": "10.0.0.1/32"}}]),
    "networkPolicy.apiServer.ports": ("NetworkPolicy", "spec.egress.1.ports", [{"port": 443, "protocol": "TCP"}]),
    "serviceAccount.annotations": ("ServiceAccount", "metadata.annotations", {"other": "o"}),
    "replicas": ("Deployment", "spec.replicas", 2),
    "monitoring.podMonitor.enabled": ("PodMonitor", "spec.podMetricsEndpoints.0.interval", "30s"),
    "monitoring.podMonitor.interval": ("PodMonitor", "spec.podMetricsEndpoints.0.interval", "7s"),
    "monitoring.podMonitor.labels": ("PodMonitor", "metadata.labels.other", "o"),
    "monitoring.serviceMonitor.enabled": ("ServiceMonitor", "spec.endpoints.0.interval", "30s"),
    "monitoring.serviceMonitor.interval": ("ServiceMonitor", "spec.endpoints.0.interval", "7s"),
    "monitoring.serviceMonitor.labels": ("ServiceMonitor", "metadata.labels.other", "o"),
    "monitoring.rules.enabled": ("PrometheusRule", "metadata.name", "tunesmith-operator"),
    "monitoring.rules.labels": ("PrometheusRule", "metadata.labels.other", "o"),
    "resources.requests.cpu": ("Deployment", f"{POD}.containers.0.resources.requests.cpu", "7"),
    "resources.requests.memory": ("Deployment", f"{POD}.containers.0.resources.requests.memory", "7Gi"),
    "resources.limits.cpu": ("Deployment", f"{POD}.containers.0.resources.limits.cpu", "7"),
    "resources.limits.memory": ("Deployment", f"{POD}.containers.0.resources.limits.memory", "7Gi"),
    "nodeSelector": ("Deployment", f"{POD}.nodeSelector", {"other": "o"}),
    "tolerations": ("Deployment", f"{POD}.tolerations", OTHERS["tolerations"]),
    "affinity": ("Deployment", f"{POD}.affinity", OTHERS["affinity"]),
    "priorityClassName": ("Deployment", f"{POD}.priorityClassName", "other"),
    "podLabels": ("Deployment", "spec.template.metadata.labels.other", "o"),
    "podAnnotations": ("Deployment", "spec.template.metadata.annotations.other", "o"),
}
"""The field of a manifest that a value sets, and its content."""
CONFIGURED = ("images.runtime", "images.engines.", "store.", "podPolicy.", "client.", "together.", "leaderElection.")
CONFIGURED += ("accelerators.", "cache.", "hub.", "workers", "allowTrustRemoteCode", "images.pullPolicy")
"""Prefixes of the values that have the same name in the operator's configuration."""
ELSEWHERE = {
    "scope.namespaces": "test_an_install_for_namespaces_has_no_cluster_role",
    "kueue.enabled": "test_an_optional_feature_adds_its_rights_and_no_others",
    "crds.enabled": "test_the_crds_stay_after_an_uninstall_unless_keep_is_off",
    "crds.keep": "test_the_crds_stay_after_an_uninstall_unless_keep_is_off",
    "rbac.aggregate": "test_people_get_our_kinds_with_view_and_edit_unless_switched_off",
    "monitoring.rules.runbookUrl": "test_the_rule_has_every_alert_for_the_namespace_of_the_release",
    "monitoring.dashboards.enabled": "test_the_dashboards_are_rendered_unchanged_for_grafanas_sidecar",
    "monitoring.dashboards.labels": "test_the_dashboards_are_rendered_unchanged_for_grafanas_sidecar",
    "monitoring.dashboards.annotations": "test_the_dashboards_are_rendered_unchanged_for_grafanas_sidecar",
}
"""Values that affect several fields, and the test of each."""


def at(thing: Any, path: str) -> Any:
    """The value at a dotted path, whose numbers are indices of lists."""
    for name in path.split("."):
        thing = thing[int(name)] if isinstance(thing, list) else thing[name]
    return thing


@pytest.mark.parametrize("path", PLACES)
def test_a_value_sets_its_field_of_the_manifest(render: Render, path: str) -> None:
    kind, place, expected = PLACES[path]
    manifests = render(**nested({"crds.enabled": False, **NEEDS.get(path, {}), path: another(path)}))
    (manifest,) = [each for each in manifests if each["kind"] == kind]
    assert at(manifest, place) == expected


@pytest.mark.parametrize("path", [path for path in LEAVES if path.startswith(CONFIGURED)])
def test_a_value_sets_its_field_of_the_configuration(render: Render, path: str) -> None:
    manifests = render(**nested({"crds.enabled": False, **NEEDS.get(path, {}), path: another(path)}))
    (text,) = [each["data"]["config.yaml"] for each in manifests if each["kind"] == "ConfigMap"]
    assert at(yaml.safe_load(text), path) == another(path)
    OperatorConfig.model_validate(yaml.safe_load(text))


def test_the_field_of_every_value_is_tested() -> None:
    configured = {path for path in LEAVES if path.startswith(CONFIGURED)}
    assert LEAVES.keys() == configured | PLACES.keys() | ELSEWHERE.keys()
    tests = "".join(path.read_text(encoding="utf-8") for path in PAGE.parents[2].glob("tests/**/test_*.py"))
    assert [name for name in ELSEWHERE.values() if f"def {name}(" not in tests] == []


def test_every_value_is_on_the_page_with_its_default() -> None:
    page = PAGE.read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    assert rows.keys() == LEAVES.keys()
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    for path, schema in LEAVES.items():
        value = defaults
        for name in path.split("."):
            value = value[name]
        assert value == schema["default"], path
        assert schema["description"] in rows[path]
        assert f"`{json.dumps(value)}`" in rows[path]


def blocks() -> Iterator[Any]:
    """The values in the pages for administrators."""
    for page in ("chart.md", "operations.md", "security.md"):
        path = PAGE.parents[1] / page
        for text in re.findall(
            r"```yaml\n(.*?)```", path.read_text(encoding="utf-8") if path.exists() else "", re.DOTALL
        ):
            documents = [document for document in yaml.safe_load_all(text) if document]
            if not any("apiVersion" in document for document in documents):
                yield pytest.param(documents[0], id=f"{page}: {', '.join(documents[0])}")


@pytest.mark.parametrize("values", list(blocks()))
def test_helm_accepts_the_values_in_the_pages(render: Render, values: dict[str, Any]) -> None:
    assert render(**values)
