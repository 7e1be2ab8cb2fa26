"""The chart as Helm renders it: the rights and the configuration that the operator has in the tests are the chart's own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from devcluster.standalone import ControlPlane
from tests.manifests import dump_all, load_all
from tunesmith_operator.plan.types import Raw

CHART = Path(__file__).resolve().parents[2] / "charts" / "tunesmith"
RELEASE = "tunesmith"
NAMESPACE = "tunesmith-system"

VALUES: dict[str, Any] = {
    "images": {"runtime": "localhost/tunesmith-runtime:test"},
    "store": {"uri": "s3://models", "endpoint": "http://s3.storage.svc:7070", "credentialsSecret": "s3-credentials"},
    "client": {"qps": 500, "burst": 1000},
    "leaderElection": {"leaseSeconds": 10, "renewSeconds": 8, "retrySeconds": 0.5},
}


def account(release: str) -> str:
    """Name of the operator's ServiceAccount."""
    return f"{release}-operator"


def render(plane: ControlPlane, values: Mapping[str, Any], release: str = RELEASE) -> list[Raw]:
    """What `helm install` with these values would create."""
    return load_all(_rendered(str(plane.program("helm")), json.dumps(values), release))


@cache
def _rendered(helm: str, values: str, release: str) -> str:
    """Nearly all operators have the same values."""
    command = [helm, "template", release, str(CHART), "--namespace", NAMESPACE, "--values", "-"]
    done = subprocess.run(command, input=values, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def of_kind(manifests: list[Raw], kind: str) -> Raw:
    """The one manifest of a kind."""
    [found] = [manifest for manifest in manifests if manifest["kind"] == kind]
    return found


def operator_config(manifests: list[Raw]) -> Raw:
    """The operator's configuration, as the chart gives it."""
    config: Raw = yaml.safe_load(of_kind(manifests, "ConfigMap")["data"]["config.yaml"])
    return config


def without_workloads(manifests: list[Raw]) -> str:
    """All but what would run: there is no node. As a YAML stream, with the namespace."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    kept = [manifest for manifest in manifests if manifest["kind"] not in ("Deployment", "Service")]
    return dump_all([namespace, *kept])
