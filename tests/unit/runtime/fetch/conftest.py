"""A real S3 server and a folder, as the two stores that every promise is tried on."""

from __future__ import annotations

from tests.s3 import s3, s3_server, store, tls_server
from tests.unit.runtime.fetch.hub_imports import folder_store, large, quick

__all__ = ["folder_store", "large", "quick", "s3", "s3_server", "store", "tls_server"]
