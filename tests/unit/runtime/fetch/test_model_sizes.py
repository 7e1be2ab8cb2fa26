"""The sizes of a model in the store."""

from __future__ import annotations

from tests.s3 import S3Server
from tests.unit.runtime.fetch.support import MODEL, PARAMETERS, Fetcher
from tunesmith_api.run import Store
from tunesmith_runtime.fetch.model_files import StoredFiles
from tunesmith_runtime.fetch.model_sizes import read_architecture


def test_headers_are_read_by_ranges_on_a_real_server(s3: S3Server, store: Store, fetcher: Fetcher) -> None:
    uri = fetcher.put("m", MODEL)
    found = read_architecture(StoredFiles(fetcher.storage, uri))
    assert (found.parameters, found.stored_bytes, found.is_exact) == (PARAMETERS, 4 * PARAMETERS, True)
