"""Models from hubs, by the hubs' own clients against a server on 127.0.0.1 that speaks the HTTP of both hubs."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.hub_server import Fault, Hub, hub
from tests.servers import free_port
from tests.unit.runtime.fetch.hub_imports import (
    KEY,
    LARGE,
    SCHEMES,
    SCHEMES_BY_PROCESS,
    URI,
    content_of,
    failure_of,
    import_model,
    servers,
)
from tests.unit.runtime.fetch.support import CONFIG, MODEL, Fetcher, names
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import Hub as HubSettings
from tunesmith_api.run import RunReport, Store
from tunesmith_runtime.fetch import hub as hub_module
from tunesmith_runtime.fetch.hub import redirection
from tunesmith_runtime.storage import join, open_storage

EXTRAS = {
    "pytorch_model.bin": b"pickle",
    "modeling.py": b"print()",
    "onnx/model.safetensors": b"x",
    "consolidated.safetensors": b"x",
}
MODELS = {
    "org/small": {**MODEL, **EXTRAS},
    "org/quantized": {**MODEL, "config.json": json.dumps(CONFIG | {"quantization_config": {"bits": 4}}).encode()},
    "org/random": {**MODEL, "config.json": json.dumps(CONFIG | {"num_hidden_layers": 2}).encode()},
    "org/pickled": {"config.json": b"{}", "pytorch_model.bin": b"pickle"},
}
HUBS = [("hf", "HF_ENDPOINT"), pytest.param("ms", "MODELSCOPE_ENDPOINT", marks=pytest.mark.deep)]


def test_the_charts_servers_take_precedence_over_the_environment_and_are_no_redirection() -> None:
    environment = {"HF_ENDPOINT": "http://elsewhere"}
    assert redirection("hf://a/b", None, environment) == environment
    assert redirection("hf://a/b", servers("ms", "http://mirror"), environment) == environment
    assert redirection("hf://a/b", servers("hf", "http://mirror"), environment) == {}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_next_server_is_used_when_one_does_not_answer(
    tmp_path: Path, folder_store: Store, large: Hub, scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    with caplog.at_level(logging.INFO):
        uri, _ = import_model(folder_store, tmp_path / "1", URI.format(scheme), servers(scheme, dead, large.url))
    assert content_of(folder_store, uri) == LARGE
    assert f"{dead}: " in caplog.text
    assert f"from {large.url}" in caplog.text
    pointer = json.loads(
        open_storage(folder_store).read_bytes(join(folder_store.uri, "models", KEY, "model.json")) or b""
    )
    assert pointer["server"] == large.url


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_model_that_a_mirror_lacks_comes_from_the_next_server(
    tmp_path: Path, folder_store: Store, large: Hub, scheme: str
) -> None:
    with hub({}) as mirror:
        uri, _ = import_model(folder_store, tmp_path / "1", URI.format(scheme), servers(scheme, mirror.url, large.url))
    assert content_of(folder_store, uri) == LARGE


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_server_that_breaks_midway_is_followed_by_the_next_which_sends_only_the_rest(
    tmp_path: Path, folder_store: Store, large: Hub, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "FILES_AT_ONCE", 1)
    with hub({"org/large": LARGE}) as mirror:
        mirror.faults.append(Fault("model-2.safetensors", status=503))
        uri, _ = import_model(folder_store, tmp_path / "1", URI.format(scheme), servers(scheme, mirror.url, large.url))
    assert content_of(folder_store, uri) == LARGE
    assert {"config.json", "model-0.safetensors", "model-1.safetensors"} <= {*mirror.sent}
    assert "model-2.safetensors" in large.sent
    assert mirror.sent + large.sent == {path: len(content) for path, content in LARGE.items()}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_failure_of_all_servers_names_each_and_is_retried_while_one_may_have_the_model(
    tmp_path: Path, folder_store: Store, scheme: str
) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    with hub({}) as mirror:
        failure = failure_of(folder_store, tmp_path / "1", scheme, mirror.url, dead)
        assert failure.failure is FailureClass.HUB_UNREACHABLE
        assert mirror.url in failure.message
        assert dead in failure.message
        alone = failure_of(folder_store, tmp_path / "1", scheme, mirror.url)
    assert alone.failure is FailureClass.MODEL_NOT_FOUND


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_token_is_not_sent_to_the_cdn(
    tmp_path: Path, folder_store: Store, large: Hub, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = "secret-of-the-hub"
    monkeypatch.setenv("HF_TOKEN" if scheme == "hf" else "MODELSCOPE_API_TOKEN", token)
    import_model(folder_store, tmp_path / "1", URI.format(scheme), servers(scheme, large.url))
    assert any(path.startswith("/cdn/") for path, _ in large.headers)
    authorized = {
        path.startswith("/cdn/") for path, headers in large.headers if any(token in text for text in headers.values())
    }
    assert authorized == {False}


def start(
    folder: Path, uri: str, environment: dict[str, str], trust: bool = False, hub: HubSettings | None = None
) -> tuple[subprocess.Popen[bytes], Path]:
    """A process that fetches a service's model, as the hubs' clients read their endpoint once; and its work directory."""
    fetcher = Fetcher(Store(uri=f"file://{folder}/store"), folder)
    spec = fetcher.spec("InferenceService", {"uri": uri, "trustRemoteCode": trust}, {})
    (folder / "run.json").write_text(json.dumps(spec.model_copy(update={"hub": hub}).to_dict()))
    settings = {
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        "TUNESMITH_TERMINATION_LOG": str(folder / "log"),
        "HOME": str(folder / "home"),
        "HF_HUB_OFFLINE": "0",
        "MODELSCOPE_CACHE": str(folder / "cache"),
    }
    work = folder / "work"
    command = [sys.executable, "-m", "tunesmith_runtime", "fetch"]
    command += ["--spec", str(folder / "run.json"), "--work", str(work)]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(command, env={**os.environ, **settings, **environment}, stdout=output, stderr=output)
    return process, work


def fetch(
    folder: Path, uri: str, environment: dict[str, str], trust: bool = False, hub: HubSettings | None = None
) -> tuple[RunReport, Path]:
    """Fetch, and wait for it; report and work directory."""
    process, work = start(folder, uri, environment, trust, hub)
    process.wait(300)
    return RunReport.model_validate_json((folder / "log").read_bytes()), work


@pytest.mark.parametrize(("scheme", "variable"), HUBS)
def test_a_hub_model_is_imported_once_and_only_what_is_safe(tmp_path: Path, scheme: str, variable: str) -> None:
    with hub(MODELS) as server:
        settings = servers(scheme, server.url)
        report, work = fetch(tmp_path, f"{scheme}://org/small", {variable: "http://127.0.0.1:1"}, hub=settings)
        assert report.outcome == "Succeeded", report
        assert names(work / "model") == {*MODEL, "manifest.json"}
        assert (work / "model/model.safetensors").read_bytes() == MODEL["model.safetensors"]
        asked = len(server.asked)
        again, _ = fetch(tmp_path, f"{scheme}://org/small", {}, hub=settings)
        assert len(server.asked) == asked
    assert again == report
    assert str(report.model_uri).startswith(f"file://{tmp_path}/store/models/")


def test_a_change_of_the_charts_servers_does_not_change_the_model_of_a_uri(tmp_path: Path) -> None:
    newer = {"org/small": {**MODEL, "config.json": json.dumps(CONFIG | {"rope_theta": 5.0}).encode()}}
    with hub(MODELS) as first, hub(newer) as second:
        before, _ = fetch(tmp_path, "hf://org/small", {}, hub=servers("hf", first.url))
        after, _ = fetch(tmp_path, "hf://org/small", {}, hub=servers("hf", second.url, first.url))
    assert after == before


@pytest.mark.parametrize(("scheme", "variable"), HUBS)
def test_a_model_of_a_redirected_hub_is_not_used_for_the_hub_itself(tmp_path: Path, scheme: str, variable: str) -> None:
    poisoned = {"org/small": {**MODEL, "config.json": json.dumps(CONFIG | {"rope_theta": 5.0}).encode()}}
    with hub(poisoned) as theirs, hub(MODELS) as ours:
        first, _ = fetch(tmp_path, f"{scheme}://org/small", {variable: theirs.url})
        second, work = fetch(tmp_path, f"{scheme}://org/small", {variable: ours.url})
    assert (first.outcome, second.outcome) == ("Succeeded", "Succeeded")
    assert first.model_uri != second.model_uri
    assert (work / "model/config.json").read_bytes() == MODEL["config.json"]


@pytest.mark.parametrize("scheme", SCHEMES_BY_PROCESS)
def test_code_of_a_hub_model_is_downloaded_only_if_it_is_trusted(tmp_path: Path, scheme: str) -> None:
    with hub(MODELS) as server:
        _, work = fetch(tmp_path, f"{scheme}://org/small", {}, trust=True, hub=servers(scheme, server.url))
    assert "modeling.py" in names(work / "model")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("name", "failure", "sentence"),
    [
        ("org/absent", "ModelNotFound", "org/absent"),
        ("org/small@v9", "ModelNotFound", "org/small@v9"),
        ("org/pickled", "UnsafeWeights", "pytorch_model.bin"),
    ],
)
def test_a_model_that_the_hub_lacks_is_not_found(
    tmp_path: Path, folder_store: Store, scheme: str, name: str, failure: str, sentence: str
) -> None:
    with hub(MODELS) as server:
        found = failure_of(folder_store, tmp_path / "1", scheme, server.url, name=name)
    assert found.failure == failure
    assert sentence in found.message
    assert names(tmp_path / "store") == set()


@pytest.mark.parametrize("scheme", SCHEMES_BY_PROCESS)
@pytest.mark.parametrize(
    ("name", "sentence", "downloads"),
    [("quantized", "the model is quantized", False), ("random", "the files lack model.layers.1", True)],
)
def test_a_hub_model_at_fault_is_not_imported(
    tmp_path: Path, scheme: str, name: str, sentence: str, downloads: bool
) -> None:
    with hub(MODELS) as server:
        report, _ = fetch(tmp_path, f"{scheme}://org/{name}", {}, hub=servers(scheme, server.url))
        assert ("model.safetensors" in server.sent) is downloads
    assert report.failure is not None
    assert report.failure.class_ == "BadModel", report.failure
    assert sentence in report.failure.message
    assert names(tmp_path / "store") == set()


@pytest.mark.parametrize(("scheme", "variable"), HUBS)
def test_a_hub_that_does_not_answer_is_unreachable(tmp_path: Path, scheme: str, variable: str) -> None:
    report, _ = fetch(tmp_path, f"{scheme}://org/small", {variable: f"http://127.0.0.1:{free_port()}"})
    assert report.failure is not None
    assert report.failure.class_ == "HubUnreachable", report.failure


def test_a_branch_is_pinned_to_its_commit_for_the_download(tmp_path: Path, folder_store: Store, large: Hub) -> None:
    import_model(folder_store, tmp_path / "1", URI.format("hf"), servers("hf", large.url))
    resolved = [path for path in large.asked if "/resolve/" in path]
    assert resolved
    assert all(f"/resolve/{large.repositories['org/large'].commit}/" in path for path in resolved)


def test_a_pod_that_is_stopped_during_an_import_leaves_its_finished_files_to_the_next(tmp_path: Path) -> None:
    with hub(MODELS) as server:
        server.faults.append(Fault("/cdn/", block_seconds=3.0))
        process, work = start(tmp_path, "hf://org/small", {"HF_ENDPOINT": server.url})
        deadline = time.monotonic() + 120
        while not server.sent["model.safetensors"] and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 75
    assert RunReport.model_validate_json((tmp_path / "log").read_bytes()).outcome == "Preempted"
    assert all("/parts/" in name for name in names(tmp_path / "store"))
    assert not (work / "model").exists()
