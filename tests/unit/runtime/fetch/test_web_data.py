"""Data files on a web server: found by https, identified by their ETag, and downloaded where the server can be trusted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_server import Fault, Hub, hub
from tests.unit.runtime.fetch.support import MODEL, Fetcher
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import Store
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch.data import DataSource, find_data

CSV = b"prompt,completion\na,b\n"


@pytest.fixture
def server(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A web server that the process trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with hub({"web/files": {"data/train.csv": CSV}}, certificate) as running:
        yield running


@pytest.fixture
def fetcher(tmp_path: Path) -> Fetcher:
    return Fetcher(Store(uri=f"file://{tmp_path}/store"), tmp_path)


def test_a_file_on_a_web_server_is_read_by_its_type(fetcher: Fetcher, server: Hub) -> None:
    uri = f"{server.url}/web/data/train.csv"
    _, work = fetcher.fetch(fetcher.job(fetcher.put("base", MODEL), uri))
    assert [(file.path, file.uri) for file in work.data_files()] == [("00.csv", uri)]
    assert (work.data / "00.csv").read_bytes() == CSV


def test_a_changed_file_on_a_web_server_is_a_new_run(fetcher: Fetcher, server: Hub) -> None:
    spec = fetcher.job(fetcher.put("base", MODEL), f"{server.url}/web/data/train.csv")
    first, again = (fetcher.prepare(spec)[0].run_uri for _ in range(2))
    server.repositories["web/files"].files["data/train.csv"] = CSV.replace(b"a", b"c")
    assert first == again != fetcher.prepare(spec)[0].run_uri


def test_a_file_without_etag_is_downloaded_once_and_its_content_is_that_of_the_run(
    server: Hub, fetcher: Fetcher, tmp_path: Path
) -> None:
    server.faults.append(Fault("train", headers={"ETag": "", "Last-Modified": ""}))
    source = DataSource(f"{server.url}/web/data/train.csv")
    data = find_data(fetcher.storage, [source])[source]
    assert data.fingerprint == hashlib.sha256(CSV).hexdigest()
    assert data.origin is not None
    data.origin.download(source.uri, tmp_path / "a" / "rows.csv")
    assert (tmp_path / "a" / "rows.csv").read_bytes() == CSV
    assert server.sent["data/train.csv"] == len(CSV)
    server.repositories["web/files"].files["data/train.csv"] = CSV[::-1]
    with pytest.raises(RunFailure, match="has changed since the run was identified") as failure:
        data.origin.download(source.uri, tmp_path / "b.csv")
    assert failure.value.failure is FailureClass.HUB_CORRUPT
    assert not (tmp_path / "b.csv").exists()


def test_a_missing_file_on_a_web_server_is_refused_before_a_device_is_taken(fetcher: Fetcher, server: Hub) -> None:
    with pytest.raises(RunFailure, match=r"/web/data/test\.csv: 404") as failure:
        fetcher.prepare(fetcher.job(fetcher.put("base", MODEL), f"{server.url}/web/data/test.csv"))
    assert failure.value.failure is FailureClass.DATASET_NOT_FOUND
    assert failure.value.hint == "check the path of test.csv in the uri of the data set"


def test_a_server_without_a_trusted_certificate_is_refused(fetcher: Fetcher, certificate: Path) -> None:
    with hub({"web/files": {"train.csv": CSV}}, certificate) as running, pytest.raises(RunFailure) as failure:
        fetcher.prepare(fetcher.job(fetcher.put("base", MODEL), f"{running.url}/web/train.csv"))
    assert failure.value.failure is FailureClass.HUB_UNREACHABLE
    assert "certificate" in failure.value.message
