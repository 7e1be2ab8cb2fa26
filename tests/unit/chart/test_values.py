"""No value of the chart is dead, none is without a test, and each is told on the page of values."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.chart.conftest import CHART

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "chart-values.md"
NEEDS: dict[str, dict[str, Any]] = {
    "store.caBundle.key": {"store.caBundle.name": "ca"},
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
"""Values without which another has nothing to change."""
OTHERS: dict[str, Any] = {
    "images.pullPolicy": "Always",
    "store.uri": "s3://other",
    "store.endpoint": "https://minio:9000",
    "scope.namespaces": ["team-a"],
    "leaderElection.leaseSeconds": 60,
    "leaderElection.renewSeconds": 12,
    "resources.requests.cpu": "7",
    "resources.requests.memory": "7Gi",
    "resources.limits.cpu": "7",
    "resources.limits.memory": "7Gi",
    "tolerations": [{"key": "a", "operator": "Exists"}],
    "networkPolicy.metricsFrom": [{"namespaceSelector": {"matchLabels": {"team": "a"}}}],
    "networkPolicy.apiServer.cidrs": ["10.0.0.1/32"],
    "monitoring.podMonitor.interval": "7s",
    "monitoring.serviceMonitor.interval": "7s",
    "monitoring.rules.runbookUrl": "https://wiki.example.com/runbooks",
}
"""Values for what is more than a word, a number or a switch."""


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
    """Values by dotted path as Helm takes them."""
    values: dict[str, Any] = {}
    for path, value in flat.items():
        *folders, name = path.split(".")
        place = values
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = value
    return values


@pytest.mark.parametrize("path", LEAVES)
def test_every_value_changes_what_is_made(render: Render, path: str) -> None:
    base = {"crds.enabled": False, **NEEDS.get(path, {})}
    assert another(path) != LEAVES[path]["default"]
    changed = {"crds.enabled": True} if path == "crds.enabled" else {**base, path: another(path)}
    assert render(**nested(changed)) != render(**nested(base))


def test_every_value_is_on_the_page_with_its_default() -> None:
    page = PAGE.read_text(encoding="utf-8")
    told = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    assert told.keys() == LEAVES.keys()
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    for path, schema in LEAVES.items():
        value = defaults
        for name in path.split("."):
            value = value[name]
        assert value == schema["default"], path
        assert schema["description"] in told[path]
        assert f"`{json.dumps(value)}`" in told[path]


def blocks() -> Iterator[Any]:
    """The values that the pages for administrators show."""
    for page in ("chart.md", "operations.md", "security.md"):
        path = PAGE.parents[1] / page
        for text in re.findall(
            r"```yaml\n(.*?)```", path.read_text(encoding="utf-8") if path.exists() else "", re.DOTALL
        ):
            documents = [one for one in yaml.safe_load_all(text) if one]
            if not any("apiVersion" in one for one in documents):
                yield pytest.param(documents[0], id=f"{page}: {', '.join(documents[0])}")


@pytest.mark.parametrize("values", list(blocks()))
def test_the_values_that_the_pages_show_are_taken(render: Render, values: dict[str, Any]) -> None:
    assert render(**values)
