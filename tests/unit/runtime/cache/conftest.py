"""A real S3 server and a folder, as the stores that the cache saves transfers from."""

from __future__ import annotations

from tests.s3 import s3, s3_server, store

__all__ = ["s3", "s3_server", "store"]
