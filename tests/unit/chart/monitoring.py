"""The queries of alerts and dashboards, and the metrics in the text of /metrics."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from devcluster.paths import cache_paths

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "charts" / "tunesmith" / "monitoring"
ALERTS: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]
DASHBOARDS: dict[str, dict[str, Any]] = {path.stem: json.loads(path.read_text()) for path in FOLDER.glob("*.json")}
TARGET = frozenset({"namespace", "pod", "instance", "job"})
"""Labels that Prometheus adds when it scrapes."""
METRIC = re.compile(r"\b(?:tunesmith|process)_[a-z_]+\b")
MATCHERS = re.compile(r"([a-z_]+)\s*(?:=~|!~|!=|=)\s*\"")
GROUPED = re.compile(r"\b(?:by|on|ignoring|without)\s*\(([^)]*)\)")
LEGEND = re.compile(r"\{\{\s*(?:\$labels\.)?([a-z_]+)\s*\}\}")

Series = Mapping[str, frozenset[str]]
"""Names of labels by name of the sample."""


def exposed(text: str) -> dict[str, frozenset[str]]:
    """The series of an exposition."""
    families = text_string_to_metric_families(text)
    return {sample.name: frozenset(sample.labels) for family in families for sample in family.samples}


def queries() -> Iterator[tuple[str, str, str]]:
    """Every query of every dashboard, with its place and its legend."""
    for name, board in DASHBOARDS.items():
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                yield f"{name}: {panel['title']}", target["expr"], target["legendFormat"]
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                yield f"{name}: ${variable['name']}", variable["definition"], ""


def unknown(query: str, legend: str, series: Series) -> set[str]:
    """Names of metrics and labels in a query that `series` do not have."""
    metrics = set(METRIC.findall(query))
    has = TARGET.union(*(series.get(name, frozenset()) for name in metrics))
    labels = {*MATCHERS.findall(query), *LEGEND.findall(legend)}
    labels |= {label.strip() for group in GROUPED.findall(query) for label in group.split(",")}
    if variable := re.fullmatch(r"label_values\((.*), ([a-z_]+)\)", query):
        labels.add(variable[2])
    return {name for name in metrics if name not in series} | (labels - has)


def promtool(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run promtool, which is built if necessary."""
    program = cache_paths().bin / "promtool"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "devcluster", "tools", "promtool"], check=True)
    return subprocess.run([program, *arguments], input=stdin, capture_output=True, text=True, check=False)
