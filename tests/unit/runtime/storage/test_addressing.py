"""How a bucket is addressed."""

from __future__ import annotations

import pytest

from tunesmith_api.run import Store
from tunesmith_runtime.storage.s3 import S3


@pytest.mark.parametrize(
    ("endpoint", "path_style", "url"),
    [
        ("http://minio.storage.svc:9000", True, "http://minio.storage.svc:9000/models/key"),
        ("https://oss.example.com", False, "https://models.oss.example.com/key"),
        (None, False, "https://models.s3.amazonaws.com/key"),
    ],
)
def test_a_bucket_is_addressed_by_path_or_by_host_as_configured(
    monkeypatch: pytest.MonkeyPatch, endpoint: str | None, path_style: bool, url: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    client = S3(Store(uri="s3://models", endpoint=endpoint, path_style=path_style))._client
    signed: str = client.generate_presigned_url("get_object", Params={"Bucket": "models", "Key": "key"})
    assert signed.partition("?")[0] == url
