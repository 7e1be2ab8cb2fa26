"""Models that are files of web servers: imported by their version, converted or unpacked, and checked as all others are."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.hub_server import Hub, hub
from tests.unit.runtime.fetch.support import MODEL, ROWS, WEIGHTS, Fetcher, names
from tests.unit.runtime.fetch.test_gguf import real_gguf
from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.fetch import gguf_header


def archive(files: Mapping[str, bytes]) -> bytes:
    """A .tar.gz of those files, in a folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as opened:
        for path, content in files.items():
            info = tarfile.TarInfo(f"model/{path}")
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


FILES = {
    "model.tar.gz": archive({**MODEL, "modeling.py": b"print()"}),
    "lacking.tar.gz": archive({path: content for path, content in MODEL.items() if path != "config.json"}),
    "alone.safetensors": WEIGHTS,
    **{
        f"beside/{name.replace('model.safetensors', 'tiny-v2.safetensors')}": content for name, content in MODEL.items()
    },
    "beside/model-00001-of-00002.safetensors": WEIGHTS,
    "page.gguf": b"<!doctype html><html>log in</html>",
}


@pytest.fixture
def web(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A web server with those files."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with hub({"web/files": FILES}, certificate) as server:
        yield server


def test_an_archive_is_imported_once_for_each_version(web: Hub, local: Fetcher) -> None:
    spec = local.spec("InferenceService", f"{web.url}/web/model.tar.gz", {})
    first, work = local.fetch(spec)
    assert names(work.model()) == {*MODEL, "manifest.json"}
    assert (work.model() / "model.safetensors").read_bytes() == WEIGHTS
    sent = web.sent["model.tar.gz"]
    again, _ = local.fetch(spec)
    assert (again, web.sent["model.tar.gz"]) == (first, sent)
    web.repositories["web/files"].files["model.tar.gz"] = archive({**MODEL, "generation_config.json": b"{}"})
    changed, _ = local.fetch(spec)
    assert changed.model_uri != first.model_uri


@pytest.mark.parametrize(
    ("name", "failure", "sentence"),
    [
        ("lacking.tar.gz", FailureClass.MODEL_NOT_FOUND, "no config.json"),
        ("alone.safetensors", FailureClass.MODEL_NOT_FOUND, "/web/config.json"),
        ("beside/model-00001-of-00002.safetensors", FailureClass.BAD_MODEL, "a part of the weights"),
        ("page.gguf", FailureClass.BAD_MODEL, "HTML"),
        ("absent.zip", FailureClass.MODEL_NOT_FOUND, "404"),
    ],
)
def test_a_file_that_is_no_model_is_refused_and_not_imported(
    web: Hub, local: Fetcher, name: str, failure: FailureClass, sentence: str
) -> None:
    with pytest.raises(RunFailure) as caught:
        local.fetch(local.spec("InferenceService", f"{web.url}/web/{name}", {}))
    assert caught.value.failure is failure, caught.value
    assert sentence in caught.value.message
    assert f"{web.url}/web/{name}" in caught.value.message
    assert names(local.folder / "store") == set()


def test_weights_are_imported_with_the_files_beside_them(web: Hub, local: Fetcher) -> None:
    spec = local.spec("InferenceService", f"{web.url}/web/beside/tiny-v2.safetensors", {})
    first, work = local.fetch(spec)
    assert names(work.model()) == {*MODEL, "manifest.json"}
    assert {name: (work.model() / name).read_bytes() for name in MODEL} == MODEL
    sent = web.sent["beside/tiny-v2.safetensors"]
    again, _ = local.fetch(spec)
    assert (again, web.sent["beside/tiny-v2.safetensors"]) == (first, sent)
    web.repositories["web/files"].files["beside/generation_config.json"] = b"{}"
    changed, work = local.fetch(spec)
    assert changed.model_uri != first.model_uri
    assert "generation_config.json" in names(work.model())


def test_the_hint_for_weights_alone_works(web: Hub, local: Fetcher) -> None:
    uri = f"{web.url}/web/alone.safetensors"
    with pytest.raises(RunFailure) as caught:
        local.fetch(local.spec("InferenceService", uri, {}))
    assert "put config.json and the files of the tokenizer beside the weights" in str(caught.value.hint)
    web.repositories["web/files"].files |= {path: each for path, each in MODEL.items() if path != "model.safetensors"}
    _, work = local.fetch(local.spec("InferenceService", uri, {}))
    assert (work.model() / "model.safetensors").read_bytes() == WEIGHTS


def test_a_gguf_of_a_web_server_is_estimated_by_its_header(
    certificate: Path, local: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setattr(gguf_header, "HEADER_BYTES", 4 << 20)
    content = real_gguf().read_bytes()
    with hub({"web/files": {"m.gguf": content}}, certificate) as server:
        data = local.put("data", {"a.jsonl": ROWS})
        before = local.objects()
        report, _ = local.prepare(local.job(f"{server.url}/web/m.gguf", data, until="estimate"))
        assert server.sent["m.gguf"] <= 2 * (4 << 20) < len(content)
    assert report.estimate is not None
    assert report.estimate.parameters == 134_515_008
    assert local.objects() == before
