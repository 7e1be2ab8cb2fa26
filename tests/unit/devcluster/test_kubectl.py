"""The values with which the chart is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from devcluster import ClusterError, Environment, kubectl
from devcluster.kubectl import CREDENTIALS_SECRET, install_chart

IMAGES = {"operator": "registry/operator:1", "runtime": "registry/runtime:1"}


def environment(s3_endpoint: str | None) -> Environment:
    return Environment(
        kubeconfig=Path("kubeconfig"),
        bin_dir=Path("bin"),
        embedded=False,
        named_registry=None,
        named_s3_endpoint=s3_endpoint,
        named_s3_keys=("access", "hush-hush"),
    )


@pytest.fixture
def values(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The values of each call of helm."""
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(kubectl, "run", lambda argv, stdin: given.append(json.loads(stdin)))
    return given


@pytest.mark.parametrize("region", [None, "eu-central-1"])
def test_the_chart_gets_the_clusters_store_with_its_region_and_no_key(
    values: list[dict[str, Any]], region: str | None
) -> None:
    chosen = {"region": region} if region else {}
    install_chart(environment("https://s3.example"), IMAGES, store_uri="s3://bucket", **chosen)
    store = {"uri": "s3://bucket", "endpoint": "https://s3.example", "region": region or "us-east-1"}
    assert values == [{"images": IMAGES, "store": {**store, "credentialsSecret": CREDENTIALS_SECRET}}]


def test_without_a_store_nothing_is_installed(values: list[dict[str, Any]]) -> None:
    with pytest.raises(ClusterError, match="TUNESMITH_S3_ENDPOINT"):
        install_chart(environment(None), IMAGES, store_uri="s3://bucket")
    assert values == []
