"""The chart's objects for the Prometheus operator are valid by that operator's CRDs, without unknown fields."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from devcluster.paths import cache_paths
from devcluster.toolchain import ensure_go
from tests.manifests import load_all
from tests.verify.test_examples import closed

CHART = Path(__file__).resolve().parents[2] / "charts" / "tunesmith"
MODULE, SUM = (
    "github.com/prometheus-operator/prometheus-operator@v0.89.0",
    "h1:2HA351OwWBa10H6TDhjeSdHOA7wiY71sEivg+z2cykk=",
)
ENABLED = {"enabled": True, "labels": {"release": "prometheus"}}
KINDS = {
    "PodMonitor": {"podMonitor": ENABLED},
    "ServiceMonitor": {"serviceMonitor": ENABLED},
    "PrometheusRule": {"rules": {**ENABLED, "runbookUrl": "https://wiki.example.com/runbooks"}},
}


@pytest.fixture(scope="module")
def crds() -> Path:
    """The folder of the CRDs, in the Go module of the Prometheus operator."""
    command = [ensure_go(cache_paths()), "mod", "download", "-json", MODULE]
    module = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert module["Sum"] == SUM
    return Path(module["Dir"]) / "example" / "prometheus-operator-crd"


@pytest.mark.parametrize("kind", KINDS)
def test_the_monitors_are_valid_for_the_prometheus_operator(crds: Path, kind: str) -> None:
    file = crds / f"monitoring.coreos.com_{kind.lower()}s.yaml"
    (crd,) = load_all(file.read_text())
    (version,) = [each for each in crd["spec"]["versions"] if each["name"] == "v1"]
    helm = [cache_paths().program("helm"), "template", "tunesmith", str(CHART), "--values=-"]
    values = json.dumps({"monitoring": KINDS[kind]})
    done = subprocess.run(helm, input=values, capture_output=True, text=True, check=True)
    (made,) = [each for each in load_all(done.stdout) if each["kind"] == kind]
    validator = jsonschema.Draft4Validator(closed(version["schema"]["openAPIV3Schema"])["properties"]["spec"])
    assert made["apiVersion"] == "monitoring.coreos.com/v1"
    validator.validate(made["spec"])
    misspelt: dict[str, Any] = {**made["spec"], "intervall": "30s"}
    assert not validator.is_valid(misspelt)
