"""docs/metrics.md lists every metric that the operator declares, with its type and labels, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from tunesmith_api.failures import FailureClass
from tunesmith_operator import fleet, metrics
from tunesmith_operator.plan.phases import Phase

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| `(tunesmith_\w+)` \| (\w+) \|([^|]*)\|", re.MULTILINE)


def declared() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Type and labels by name."""
    found = {gauge.name: ("gauge", gauge.labels) for gauge in fleet.SUMS}
    found |= {name: ("gauge", fleet.JOB_LABELS) for name, _ in fleet.JOB_GAUGES.values()}
    found[fleet.LEFT_OUT[0]] = ("gauge", ())
    for metric in metrics.REGISTRY._collector_to_names:
        if isinstance(metric, MetricWrapperBase):
            suffix = "_total" if metric._type == "counter" else ""
            found[f"{metric._name}{suffix}"] = (metric._type, tuple(metric._labelnames))
    return found


def test_the_page_lists_every_metric_with_type_and_labels() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    listed = {name: (kind, tuple(filter(None, labels.strip().split(", ")))) for name, kind, labels in ROW.findall(page)}
    assert listed == declared()


def test_the_page_multiplies_by_the_phases_and_the_failure_classes_that_there_are() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    phases, classes = map(int, re.findall(r"(\d+) (?:phases|\[classes\])", page))
    assert phases == len(Phase) + 1  # New is the phase of a resource without a status
    assert classes == len(FailureClass)
