"""A real S3 server and a folder, as the two stores that every promise about storage is tried on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.s3 import S3Server, s3, s3_server, tls_server
from tunesmith_api.run import Store

__all__ = ["s3", "s3_server", "tls_server"]


@pytest.fixture(params=["s3", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store, once in a bucket and once in a folder."""
    if request.param == "file":
        return Store(uri=f"file://{tmp_path}/store")
    server: S3Server = request.getfixturevalue("s3")
    return server.store(server.new_bucket())
