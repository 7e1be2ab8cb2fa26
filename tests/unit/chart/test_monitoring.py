"""The opt-in objects for Prometheus and Grafana; alerts fire when they should and have runbooks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.chart.conftest import Helm, Manifest, Render
from tests.unit.chart.monitoring import ALERTS, DASHBOARDS, METRIC, ROOT, promtool, queries

TESTS = Path(__file__).parent / "alerts.test.yaml"
RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8")
SELECTOR = {
    "app.kubernetes.io/name": "tunesmith",
    "app.kubernetes.io/instance": "tunesmith",
    "app.kubernetes.io/component": "operator",
}
OPTIONAL = {"PodMonitor", "ServiceMonitor", "PrometheusRule", "PodDisruptionBudget"}


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def test_objects_that_need_other_crds_are_opt_in(render: Render) -> None:
    assert not OPTIONAL & {manifest["kind"] for manifest in render()}
    assert [config["metadata"]["name"] for config in of_kind(render(), "ConfigMap")] == ["tunesmith-operator"]


@pytest.mark.parametrize(
    ("value", "kind", "endpoints"),
    [("podMonitor", "PodMonitor", "podMetricsEndpoints"), ("serviceMonitor", "ServiceMonitor", "endpoints")],
)
def test_a_monitor_finds_the_operator_and_keeps_the_namespaces_of_the_resources(
    render: Render, value: str, kind: str, endpoints: str
) -> None:
    asked = {value: {"enabled": True, "interval": "15s", "labels": {"release": "prometheus"}}}
    manifests = render(monitoring=asked)
    (monitor,) = of_kind(manifests, kind)
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    (endpoint,) = monitor["spec"][endpoints]
    assert endpoint == {"port": "health", "path": "/metrics", "interval": "15s", "honorLabels": True}
    found = monitor["spec"]["selector"]["matchLabels"]
    assert found == SELECTOR
    (deployment,) = of_kind(manifests, "Deployment")
    (service,) = of_kind(manifests, "Service")
    pods = deployment["spec"]["template"]
    assert found.items() <= pods["metadata"]["labels"].items()
    assert found.items() <= service["metadata"]["labels"].items()
    assert "health" in {port["name"] for port in pods["spec"]["containers"][0]["ports"]}


def test_two_monitors_are_refused(helm: Helm) -> None:
    both = {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}
    done = helm("template", str(ROOT / "charts" / "tunesmith"), values={"monitoring": both})
    assert done.returncode != 0
    assert "enable one of them" in done.stderr


def test_a_drain_evicts_replicas_singly(render: Render) -> None:
    (budget,) = of_kind(render(replicas=2), "PodDisruptionBudget")
    assert budget["spec"] == {"maxUnavailable": 1, "selector": {"matchLabels": SELECTOR}}


def test_the_rule_has_every_alert_for_the_namespace_of_the_release(render: Render) -> None:
    rules = {"enabled": True, "labels": {"release": "prometheus"}, "runbookUrl": "https://wiki.example.com/runbooks"}
    (rule,) = of_kind(render(monitoring={"rules": rules}), "PrometheusRule")
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    rendered = {alert["alert"]: alert for group in rule["spec"]["groups"] for alert in group["rules"]}
    assert rendered.keys() == {alert["alert"] for alert in ALERTS}
    assert 'tunesmith_leader{namespace="tunesmith-system"}' in rendered["TunesmithNoLeader"]["expr"]
    assert "OPERATOR_NAMESPACE" not in json.dumps(rule)
    link = rendered["TunesmithJobsFail"]["annotations"]["runbook_url"]
    assert link == "https://wiki.example.com/runbooks#tunesmithjobsfail"
    (plain,) = of_kind(render(monitoring={"rules": {"enabled": True}}), "PrometheusRule")
    assert "runbook_url" not in json.dumps(plain)


def test_the_dashboards_are_rendered_unchanged_for_grafanas_sidecar(render: Render) -> None:
    asked = {"enabled": True, "labels": {"grafana_dashboard": "yes"}, "annotations": {"grafana_folder": "ML"}}
    made = [
        config
        for config in of_kind(render(monitoring={"dashboards": asked}), "ConfigMap")
        if "annotations" in config["metadata"]
    ]
    assert {config["metadata"]["name"].rpartition("-")[2] for config in made} == DASHBOARDS.keys() == {"fleet", "job"}
    for config in made:
        assert config["metadata"]["labels"]["grafana_dashboard"] == "yes"
        assert config["metadata"]["annotations"] == {"grafana_folder": "ML"}
        ((file, text),) = config["data"].items()
        assert json.loads(text) == DASHBOARDS[file.removeprefix("tunesmith-").removesuffix(".json")]


def test_dashboards_have_ids_of_their_own_and_no_panel_over_another() -> None:
    assert len({board["uid"] for board in DASHBOARDS.values()}) == len(DASHBOARDS)
    for board in DASHBOARDS.values():
        panels = board["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        cells = [
            (x, y)
            for panel in panels
            for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
        ]
        assert len(set(cells)) == len(cells)
        assert max(x for x, _ in cells) < 24
        assert [panel["title"] for panel in panels if panel["type"] != "row" and not panel["description"]] == []


def test_every_query_of_a_dashboard_uses_existing_variables() -> None:
    builtin = {"__range", "__rate_interval", "datasource"}
    for name, board in DASHBOARDS.items():
        known = {variable["name"] for variable in board["templating"]["list"]} | builtin
        used = {
            found
            for where, query, _ in queries()
            if where.startswith(f"{name}:")
            for found in re.findall(r"\$\{?(\w+)", query)
        }
        assert used <= known


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_every_alert_has_a_severity_a_description_and_a_runbook(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert alert["annotations"]["summary"]
    assert alert["annotations"]["description"]
    section = RUNBOOKS.partition(f"\n## {alert['alert']}\n")[2].partition("\n## ")[0]
    assert len(section.split()) > 30, "a runbook has the meaning, what to check, and what to do"


def test_the_runbooks_explain_no_alert_that_does_not_exist() -> None:
    documented = set(re.findall(r"^## (Tunesmith\w+)$", RUNBOOKS, re.MULTILINE))
    assert documented == {alert["alert"] for alert in ALERTS}


@pytest.fixture
def rules(render: Render, tmp_path: Path) -> Path:
    """The chart's rules and their tests as files for promtool, also without annotations, which promtool would compare."""
    (rule,) = of_kind(render(monitoring={"rules": {"enabled": True}}), "PrometheusRule")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule["spec"]))
    for group in rule["spec"]["groups"]:
        for alert in group["rules"]:
            del alert["annotations"]
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump(rule["spec"]))
    (tmp_path / TESTS.name).write_text(TESTS.read_text())
    return tmp_path


def test_prometheus_accepts_the_rules(rules: Path) -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", str(rules / "rules.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


def test_every_alert_fires_when_it_should_and_not_before(rules: Path) -> None:
    done = promtool("test", "rules", str(rules / TESTS.name))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_firing_and_silent() -> None:
    tried = [case for test in yaml.safe_load(TESTS.read_text())["tests"] for case in test["alert_rule_test"]]
    names = {alert["alert"] for alert in ALERTS}
    assert {case["alertname"] for case in tried if case["exp_alerts"]} == names
    assert {case["alertname"] for case in tried if not case["exp_alerts"]} == names


def test_the_alerts_are_tested_with_the_metrics_that_they_use() -> None:
    tests = yaml.safe_load(TESTS.read_text())["tests"]
    given = {name for test in tests for series in test["input_series"] for name in METRIC.findall(series["series"])}
    assert given == {name for alert in ALERTS for name in METRIC.findall(alert["expr"])}
