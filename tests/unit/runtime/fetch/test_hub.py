"""Models from hubs, by the hubs' own clients against hubs on 127.0.0.1 that speak their API."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.servers import free_port
from tests.unit.runtime.fetch.hubs import COMMIT, HuggingFace, ModelScope, hub
from tests.unit.runtime.fetch.support import CONFIG, MODEL, Fetcher, names
from tunesmith_api.run import RunReport, Store

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
HUBS = [("hf", HuggingFace, "HF_ENDPOINT"), ("ms", ModelScope, "MODELSCOPE_ENDPOINT")]


def start(
    folder: Path, uri: str, environment: dict[str, str], trust: bool = False
) -> tuple[subprocess.Popen[bytes], Path]:
    """A process that fetches a service's model, as the hubs' clients read their endpoint once; and its work directory."""
    fetcher = Fetcher(Store(uri=f"file://{folder}/store"), folder)
    spec = fetcher.spec("InferenceService", {"uri": uri, "trustRemoteCode": trust}, {})
    (folder / "run.json").write_text(json.dumps(spec.to_dict()))
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


def fetch(folder: Path, uri: str, environment: dict[str, str], trust: bool = False) -> tuple[RunReport, Path]:
    """Fetch, and wait for it; report and work directory."""
    process, work = start(folder, uri, environment, trust)
    process.wait(300)
    return RunReport.model_validate_json((folder / "log").read_bytes()), work


@pytest.mark.parametrize(("scheme", "handler", "variable"), HUBS)
def test_a_hub_model_is_imported_once_and_only_what_is_safe(
    tmp_path: Path, scheme: str, handler: type[HuggingFace], variable: str
) -> None:
    with hub(handler, MODELS) as server:
        report, work = fetch(tmp_path, f"{scheme}://org/small", {variable: server.url})
        assert report.outcome == "Succeeded", report
        assert names(work / "model") == {*MODEL, "manifest.json"}
        assert (work / "model/model.safetensors").read_bytes() == MODEL["model.safetensors"]
        asked = len(server.asked)
        again, _ = fetch(tmp_path, f"{scheme}://org/small", {variable: server.url})
        assert len(server.asked) == asked
    assert again == report
    assert str(report.model_uri).startswith(f"file://{tmp_path}/store/models/")


@pytest.mark.parametrize(("scheme", "handler", "variable"), HUBS)
def test_a_model_of_a_redirected_hub_is_not_used_for_the_hub_itself(
    tmp_path: Path, scheme: str, handler: type[HuggingFace], variable: str
) -> None:
    poisoned = {"org/small": {**MODEL, "config.json": json.dumps(CONFIG | {"rope_theta": 5.0}).encode()}}
    with hub(handler, poisoned) as theirs, hub(handler, MODELS) as ours:
        first, _ = fetch(tmp_path, f"{scheme}://org/small", {variable: theirs.url})
        second, work = fetch(tmp_path, f"{scheme}://org/small", {variable: ours.url})
    assert (first.outcome, second.outcome) == ("Succeeded", "Succeeded")
    assert first.model_uri != second.model_uri
    assert (work / "model/config.json").read_bytes() == MODEL["config.json"]


@pytest.mark.parametrize(("scheme", "handler", "variable"), HUBS)
def test_code_of_a_hub_model_is_downloaded_only_if_it_is_trusted(
    tmp_path: Path, scheme: str, handler: type[HuggingFace], variable: str
) -> None:
    with hub(handler, MODELS) as server:
        _, work = fetch(tmp_path, f"{scheme}://org/small", {variable: server.url}, trust=True)
    assert "modeling.py" in names(work / "model")


@pytest.mark.parametrize(("scheme", "handler", "variable"), HUBS)
@pytest.mark.parametrize(
    ("name", "failure", "sentence"),
    [
        ("org/absent", "ModelNotFound", "org/absent"),
        ("org/small@v9", "ModelNotFound", "org/small@v9"),
        ("org/pickled", "UnsafeWeights", "pytorch_model.bin"),
    ],
)
def test_a_model_that_the_hub_lacks_is_not_found(
    tmp_path: Path, scheme: str, handler: type[HuggingFace], variable: str, name: str, failure: str, sentence: str
) -> None:
    with hub(handler, MODELS) as server:
        report, work = fetch(tmp_path, f"{scheme}://{name}", {variable: server.url})
    assert report.failure is not None
    assert report.failure.class_ == failure, report.failure
    assert sentence in report.failure.message
    assert not (work / "model").exists()
    assert names(tmp_path / "store") == set()


@pytest.mark.parametrize(("scheme", "handler", "variable"), HUBS)
@pytest.mark.parametrize(
    ("name", "sentence", "downloads"),
    [("quantized", "the model is quantized", False), ("random", "the files lack model.layers.1", True)],
)
def test_a_hub_model_at_fault_is_not_imported(
    tmp_path: Path, scheme: str, handler: type[HuggingFace], variable: str, name: str, sentence: str, downloads: bool
) -> None:
    with hub(handler, MODELS) as server:
        report, _ = fetch(tmp_path, f"{scheme}://org/{name}", {variable: server.url})
        assert any("model.safetensors" in path for path in server.asked) is downloads
    assert report.failure is not None
    assert report.failure.class_ == "BadModel", report.failure
    assert sentence in report.failure.message
    assert names(tmp_path / "store") == set()


@pytest.mark.parametrize(("scheme", "handler", "variable"), HUBS)
def test_a_hub_that_does_not_answer_is_unreachable(
    tmp_path: Path, scheme: str, handler: type[HuggingFace], variable: str
) -> None:
    report, _ = fetch(tmp_path, f"{scheme}://org/small", {variable: f"http://127.0.0.1:{free_port()}"})
    assert report.failure is not None
    assert report.failure.class_ == "HubUnreachable", report.failure


def test_a_branch_is_pinned_to_its_commit_for_the_download(tmp_path: Path) -> None:
    with hub(HuggingFace, MODELS) as server:
        fetch(tmp_path, "hf://org/small", {"HF_ENDPOINT": server.url})
        resolved = [path for path in server.asked if "/resolve/" in path]
    assert resolved
    assert all(f"/resolve/{COMMIT}/" in path for path in resolved)


def test_a_pod_that_is_stopped_during_an_import_leaves_it_to_the_next(tmp_path: Path) -> None:
    reached = threading.Event()

    class Slow(HuggingFace):
        def reply(self, path: str, head: bool) -> None:
            if path.endswith(".safetensors") and not head:
                reached.set()
                time.sleep(3)
            super().reply(path, head)

    with hub(Slow, MODELS) as server:
        process, work = start(tmp_path, "hf://org/small", {"HF_ENDPOINT": server.url})
        assert reached.wait(120)
        assert names(tmp_path / "store") != set()
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 75
    assert RunReport.model_validate_json((tmp_path / "log").read_bytes()).outcome == "Preempted"
    assert names(tmp_path / "store") == set()
    assert not (work / "model").exists()
