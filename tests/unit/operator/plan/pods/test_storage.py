"""The store of a run: the storage of the resource over the chart's values."""

from __future__ import annotations

import pytest

from tunesmith_api.common import Storage
from tunesmith_operator.plan.config import StoreDefaults
from tunesmith_operator.plan.pods.storage import resolve

MINIO = "http://minio.storage.svc:9000"


@pytest.mark.parametrize(
    ("chart", "own", "path_style"),
    [
        ({}, None, False),
        ({"endpoint": MINIO}, None, True),
        ({"endpoint": MINIO, "pathStyle": False}, None, False),
        ({"pathStyle": True}, None, True),
        ({}, {"endpoint": MINIO}, True),
        ({"endpoint": MINIO}, {"pathStyle": False}, False),
        ({"pathStyle": False}, {"endpoint": MINIO, "pathStyle": True}, True),
    ],
)
def test_buckets_are_addressed_by_path_with_an_endpoint_unless_path_style_is_set(
    chart: dict[str, object], own: dict[str, object] | None, path_style: bool
) -> None:
    default = StoreDefaults.model_validate({"uri": "s3://models", **chart})
    assert resolve(Storage.model_validate(own) if own else None, default).store.path_style is path_style
