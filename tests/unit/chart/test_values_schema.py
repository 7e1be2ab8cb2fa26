"""The schema of the chart's values: what it refuses, and how it describes each value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml

from tests.unit.chart.conftest import CHART, SCHEMA, Helm
from tunesmith_api.uris import ENDPOINT, STORE


def objects(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all objects of the schema with named keys."""
    if "properties" in schema:
        yield path
        for name, below in schema["properties"].items():
            yield from objects(below, (*path, name))


@pytest.mark.parametrize("path", list(objects(SCHEMA)), ids=".".join)
def test_an_unknown_key_is_refused_at_every_level(helm: Helm, path: tuple[str, ...]) -> None:
    values: dict[str, Any] = {"nonsense": 1}
    for name in reversed(path):
        values = {name: values}
    done = helm("template", str(CHART), values=values)
    assert done.returncode != 0
    assert "nonsense" in done.stderr


@pytest.mark.parametrize(
    "uri",
    [
        *("bucket", "s3:bucket", "s3://", "s3:///prefix", "s3://a", "s3://My-Bucket", "s3://my_bucket", "s3://-ab", "s3://ab-"),
        *("s3://a..b", "s3://a.-b", "s3://10.0.0.1", "s3://" + "b" * 64, "s3://bucket:9000/x", "s3://key:secret@bucket"),
        *("s3://bucket/..", "s3://bucket/./x", "s3://bucket//x", "s3://bucket/a b", "s3://bucket/a%20b", "s3://bucket/*"),
        *("s3://bucket?versionId=1", "s3://bucket/a\u200b", "s3://bucket/a\\b", "S3://bucket", "gs://bucket"),
        *("s3://bucket", "s3://bucket/", "s3://bucket/a/b", "s3://my.bucket-1/模型/.hidden", "s3://bucket/a..b", "s3://bucket/100%"),
    ],
)  # fmt: skip
def test_helm_accepts_the_stores_that_the_operator_accepts(helm: Helm, uri: str) -> None:
    """The operator's pod would not start with other values."""
    done = helm("template", str(CHART), values={"store": {"uri": uri}})
    assert (done.returncode == 0) == STORE.admits(uri), done.stderr
    assert done.returncode == 0 or "store.uri: write s3://bucket" in done.stderr


@pytest.mark.parametrize(
    "url",
    [
        *("minio:9000", "https://", "https://a b", "https://minio:port", "https://minio:123456", "https://key:secret@minio"),
        *("https://my_minio", "https://minio:0", "https://minio:70000", "https://-minio", "https://minio..svc", "https://a\u200b"),
        *("https://minio/?x=1", "https://minio#a", "HTTPS://minio", "https://minio/a|b", "s3://bucket"),
        *("http://minio", "https://minio:9000/", "https://[fd00::1]:9000", "https://s3.example.com/tenant", "http://10.0.0.1:9000"),
    ],
)  # fmt: skip
def test_helm_accepts_the_endpoints_that_the_operator_accepts(helm: Helm, url: str) -> None:
    done = helm("template", str(CHART), values={"store": {"endpoint": url}})
    assert (done.returncode == 0) == ENDPOINT.admits(url), done.stderr
    assert done.returncode == 0 or "store.endpoint: write the URL" in done.stderr


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"store": {"uri": "http://bucket"}}, "store.uri: write s3://bucket or s3://bucket/prefix"),
        ({"store": {"uri": ""}}, "store.uri: write s3://bucket"),
        ({"store": {"uri": "my-bucket"}}, "store.uri: write s3://bucket"),
        ({"store": {"uri": "s3://"}}, "store.uri: write s3://bucket"),
        ({"store": {"uri": "s3://key:secret@bucket"}}, "write s3://bucket"),
        ({"store": {"uri": "s3://bucket/my models"}}, "write s3://bucket"),
        ({"store": {"uri": "s3://My_Bucket"}}, "3 to 63 lower-case letters"),
        ({"store": {"uri": "s3://b"}}, "3 to 63 lower-case letters"),
        ({"store": {"uri": None}}, "missing property 'uri'"),
        ({"store": {"endpoint": "minio:9000"}}, "store.endpoint: write the URL of the S3 API with http:// or https://"),
        ({"store": {"endpoint": "s3://bucket"}}, "store.endpoint: write the URL"),
        ({"store": {"endpoint": "https://"}}, "store.endpoint: write the URL"),
        ({"store": {"endpoint": "https://minio:9000?x=1"}}, "store.endpoint: write the URL"),
        ({"store": {"endpoint": "https://key:secret@minio"}}, "without credentials"),
        ({"store": {"pathStyle": "yes"}}, "value must be one of '', true, false"),
        ({"store": {"credentialsSecret": "My_Secret"}}, "write the name of a Secret, in lower case"),
        ({"cache": {"hostPath": "/cache", "claim": "models"}}, "cache.hostPath and cache.claim: set one of them"),
        ({"cache": {"hostPath": "/"}}, "cache.hostPath"),
        ({"cache": {"hostPath": "/var/../etc"}}, "cache.hostPath"),
        ({"cache": {"claim": "other/models"}}, "cache.claim"),
        ({"cache": {"claim": "models", "maxBytes": "200GB"}}, "cache.maxBytes"),
        ({"cache": {"maxBytes": "200Gi"}}, "cache.maxBytes: set cache.hostPath or cache.claim too"),
        ({"hub": {"tokenSecret": "My_Secret"}}, "hub.tokenSecret: write the name of a Secret, in lower case"),
        ({"hub": {"endpoints": {"huggingface": ["hf-mirror.com"]}}}, "hub.endpoints.huggingface: write the URL"),
        ({"hub": {"endpoints": {"modelscope": ["https://me:word@mirror"]}}}, "hub.endpoints.modelscope: write the URL"),
        ({"images": {"engines": {"tgi": "x"}}}, "'tgi' not allowed"),
        ({"images": {"pullPolicy": "Sometimes"}}, "images.pullPolicy"),
        ({"scope": {"namespaces": "team-a"}}, "scope.namespaces"),
        ({"replicas": "two"}, "replicas"),
        ({"podLabels": {"app.kubernetes.io/name": "x"}}, "podLabels"),
        ({"replicas": 2, "leaderElection": {"enabled": False}}, "set leaderElection.enabled: true, or replicas: 1"),
        ({"leaderElection": {"renewSeconds": 15}}, "leaseSeconds must be more than renewSeconds"),
        ({"leaderElection": {"retrySeconds": 13.5}}, "and that more than retrySeconds"),
        ({"resources": {"limits": {"memory": "1Gb"}}}, "resources.limits.memory"),
        ({"podAnnotations": {"checksum/config": "x"}}, "podAnnotations"),
        ({"monitoring": {"rules": {"labels": {"app.kubernetes.io/name": "x"}}}}, "monitoring.rules.labels"),
        ({"client": None}, "client"),
        ({"leaderElection": {"enabled": None}}, "enabled"),
        ({"monitoring": None}, "monitoring"),
    ],
)
def test_an_invalid_value_is_refused_by_name(helm: Helm, values: dict[str, Any], message: str) -> None:
    done = helm("template", str(CHART), values=values)
    assert done.returncode != 0
    assert message in done.stderr or message in done.stderr.replace("/", ".")
    assert "key:secret@minio" not in done.stderr


def test_every_value_is_described_and_has_its_default() -> None:
    for path in objects(SCHEMA):
        schema = SCHEMA
        for name in path:
            schema = schema["properties"][name]
        assert schema["additionalProperties"] is False, path
        for name, below in schema["properties"].items():
            assert below.get("description", "").endswith("."), (*path, name)
            assert "properties" in below or "default" in below or name == "global", (*path, name)


def test_the_default_values_keep_the_schema() -> None:
    jsonschema.validate(yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8")), SCHEMA)
