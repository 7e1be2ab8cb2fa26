"""Command lines of the engines that are servers of their own: golden files, read by the real parser where it is installed."""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import free_port, run_spec
from tunesmith_api.failures import FailureClass
from tunesmith_api.inferenceservice import Engine
from tunesmith_api.pods import Accelerator
from tunesmith_api.run import RunSpec
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.report import PlainFormatter
from tunesmith_runtime.serve.config import OWN_ADAPTER, ServeConfig, engine_of, serve_config
from tunesmith_runtime.serve.engines import ENGINES, lmdeploy, process, sglang, vllm
from tunesmith_runtime.serve.engines.process import supervise
from tunesmith_runtime.workdir import Work

GOLDEN = Path(__file__).parent / "golden"
SERVERS = {"lmdeploy": lmdeploy, "vllm": vllm, "sglang": sglang}
MODEL = Path("/work/model")
KEY = "a-secret-of-the-test"


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Restore the signal handlers after the test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def cases(tmp_path: Path) -> dict[str, ServeConfig]:
    """What is served: a plain model on two GPUs; a model that is an adapter, with another beside it; an Ascend NPU; and a model
    that reads images, without hosts of images and with two."""
    own, other = tmp_path / "own", tmp_path / "fr"
    for folder, rank in ((own, 12), (other, 8)):
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps({"r": rank, "rank_pattern": {}}))
    images = tmp_path / "images"
    images.mkdir()
    config = {"model_type": "qwen3_vl", "architectures": ["Qwen3VLForConditionalGeneration"], "vision_config": {}}
    (images / "config.json").write_text(json.dumps(config))
    (images / "preprocessor_config.json").write_text("{}")
    names: dict[str, str | None] = {"demo": OWN_ADAPTER, "fr": "fr"}
    nvidia, ascend = Accelerator.NVIDIA, Accelerator.ASCEND
    return {
        "plain": ServeConfig(MODEL, {"demo": None}, max_length=4096, accelerator=nvidia, devices=2, api_key=KEY),
        "adapters": ServeConfig(
            MODEL, names, {OWN_ADAPTER: own, "fr": other}, accelerator=nvidia, trust_remote_code=True
        ),
        "ascend": ServeConfig(MODEL, {"demo": None}, accelerator=ascend, devices=4),
        "images": ServeConfig(images, {"demo": None}, accelerator=nvidia),
        "hosts": ServeConfig(
            images, {"demo": None}, accelerator=nvidia, allowed_hosts=frozenset({"b.example.com", "a.example.com"})
        ),
    }


@pytest.mark.parametrize("case", ["plain", "adapters", "ascend", "images", "hosts"])
@pytest.mark.parametrize("engine", SERVERS)
def test_the_command_line_is_the_golden_one(
    engine: str, case: str, cases: dict[str, ServeConfig], tmp_path: Path
) -> None:
    argv = [
        word.replace(sys.executable, "python").replace(str(tmp_path), "/work")
        for word in SERVERS[engine].command(cases[case])
    ]
    assert argv == (GOLDEN / f"{engine}-{case}.txt").read_text().split("\n")[:-1]


def test_vllm_receives_the_key_in_its_environment(cases: dict[str, ServeConfig]) -> None:
    assert KEY not in vllm.command(cases["plain"])
    assert vllm.environment(cases["plain"])["VLLM_API_KEY"] == KEY
    assert "VLLM_API_KEY" not in vllm.environment(cases["adapters"])


def test_vllm_follows_no_redirect_to_another_host(cases: dict[str, ServeConfig]) -> None:
    assert vllm.environment(cases["hosts"])["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "0"


@pytest.fixture(scope="module")
def lmdeploy_parser() -> argparse.ArgumentParser:
    pytest.importorskip("lmdeploy", reason="LMDeploy is an extra layer of the image for GPU hosts")
    importlib.import_module("lmdeploy.cli.serve").SubCliServe.add_parsers()
    parser: argparse.ArgumentParser = importlib.import_module("lmdeploy.cli.cli").CLI.parser
    return parser


@pytest.fixture(scope="module")
def sglang_parser() -> argparse.ArgumentParser:
    pytest.importorskip("sglang", reason="SGLang has an image of its own")
    parser = argparse.ArgumentParser()
    importlib.import_module("sglang.srt.server_args").ServerArgs.add_cli_args(parser)
    return parser


def golden(engine: str, case: str) -> list[str]:
    """The arguments of a golden command line, without the command itself."""
    return (GOLDEN / f"{engine}-{case}.txt").read_text().split("\n")[3:-1]


@pytest.mark.parametrize("case", ["plain", "adapters", "ascend"])
def test_lmdeploys_own_parser_reads_the_golden_command_line(
    case: str, lmdeploy_parser: argparse.ArgumentParser
) -> None:
    options = lmdeploy_parser.parse_args(golden("lmdeploy", case))
    assert (options.model_path, options.server_port) == ("/work/model", 8000)
    assert options.model_name == ("demo-base" if case == "adapters" else "demo")
    assert options.adapters == (["demo=/work/own", "fr=/work/fr"] if case == "adapters" else None)
    assert (options.tp, options.device) == {"plain": (2, "cuda"), "adapters": (1, "cuda"), "ascend": (4, "ascend")}[
        case
    ]
    assert options.backend == ("turbomind" if case == "plain" else "pytorch")
    assert options.api_keys == ([KEY] if case == "plain" else None)


@pytest.mark.parametrize("case", ["plain", "adapters", "ascend"])
def test_sglangs_own_parser_reads_the_golden_command_line(case: str, sglang_parser: argparse.ArgumentParser) -> None:
    options = sglang_parser.parse_args(golden("sglang", case))
    assert (options.model_path, options.port) == ("/work/model", 8000)
    assert options.served_model_name == ("demo-base" if case == "adapters" else "demo")
    assert options.lora_paths == (["demo=/work/own", "fr=/work/fr"] if case == "adapters" else None)
    assert (options.tp_size, options.device) == {"plain": (2, None), "adapters": (1, None), "ascend": (4, "npu")}[case]
    assert options.context_length == (4096 if case == "plain" else None)


def spec(kind: str, **fields: object) -> RunSpec:
    return RunSpec.model_validate(run_spec(kind, "demo", **fields))  # type: ignore[arg-type]


def test_auto_resolves_to_the_engine_of_every_image() -> None:
    assert engine_of(spec("InferenceService")) is Engine.TRANSFORMERS
    assert engine_of(spec("InferenceService", spec={"resources": {"accelerator": "nvidia"}})) is Engine.TRANSFORMERS
    benchmarks = [{"name": "gsm8k"}]
    assert engine_of(spec("EvalJob", spec={"benchmarks": benchmarks, "engine": "vllm"})) is Engine.VLLM
    assert engine_of(spec("EvalJob", spec={"benchmarks": benchmarks})) is Engine.TRANSFORMERS


def test_a_model_that_is_an_adapter_has_the_resources_name() -> None:
    models = {"adapter": {"uri": "s3://runs/adapter"}, "base": {"uri": "s3://models/base"}}
    adapters = [{"name": "fr", "model": {"uri": "s3://runs/fr"}}]
    settings = {"resources": {"accelerator": "nvidia", "count": 4}, "maxModelLength": 2048}
    config = serve_config(
        spec("InferenceService", spec=settings, models=models, adapters=adapters), Work(Path("/work"))
    )
    assert config.names == {"demo": OWN_ADAPTER, "fr": "fr"}
    assert config.named_adapters == {"demo": Path("/work/adapter"), "fr": Path("/work/adapters/fr")}
    assert (config.base_name, config.devices, config.max_length, config.ready_port) == ("demo-base", 4, 2048, 8001)


def status(port: int, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_an_engine_missing_in_the_image_is_reported() -> None:
    with pytest.raises(RunFailure, match="no-such-engine cannot be started: No such file") as failed:
        supervise(ServeConfig(MODEL, {"demo": None}), ["no-such-engine"], {})
    assert failed.value.failure is FailureClass.ENGINE_FAILED
    assert "images.engines" in (failed.value.hint or "")


def test_a_key_that_an_engine_prints_is_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_API_KEY", KEY)
    line = logging.LogRecord("tunesmith_runtime", logging.INFO, "", 0, "ServerArgs(api_key='%s')", (KEY,), None)
    assert PlainFormatter().format(line).endswith("ServerArgs(api_key='***')")


def test_an_engine_that_exits_by_itself_is_a_failure_with_its_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tunesmith_runtime")
    program = [sys.executable, "-c", "import sys; print('no GPU found'); sys.exit(3)"]
    with pytest.raises(RunFailure, match="ended with exit code 3"):
        supervise(ServeConfig(MODEL, {"demo": None}, host="127.0.0.1", port=free_port()), program, {})
    assert "no GPU found" in caplog.text


def watch(port: int, path: Path) -> None:
    """Wait for /ready, record the probes' status codes, then send this process SIGTERM as the kubelet does."""
    while status(port + 1, "/ready") != 200:
        time.sleep(0.2)
    path.write_text(f"{status(port + 1, '/ready')} {status(port, '/ready')}")
    os.kill(os.getpid(), signal.SIGTERM)


PLAIN_ENGINE = """
import sys
import uvicorn
from pathlib import Path
from tunesmith_runtime.serve.generation.loop import Loop
from tunesmith_runtime.serve.generation.model import load
from tunesmith_runtime.serve.openai.app import Service, create_app
model = load(Path(sys.argv[1]), {}, None, False)
loop = Loop(model.forward, model.decode, model.eos)
loop.start()
service = Service({"demo": None}, None, model, loop, draining=True)
uvicorn.run(create_app(service), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
"""
"""A server with /health and the OpenAI API and without /ready, like the external engines."""


def test_an_engine_is_ready_when_it_has_generated_a_token_and_stops_when_asked(work: Path, tmp_path: Path) -> None:
    port, seen = free_port(), tmp_path / "seen"
    config = ServeConfig(work / "model", {"demo": None}, host="127.0.0.1", port=port)
    environment = {"PYTHONPATH": ":".join(entry for entry in sys.path if entry), "OMP_WAIT_POLICY": "PASSIVE"}
    threading.Thread(target=watch, args=(port, seen), daemon=True).start()
    supervise(config, [sys.executable, "-c", PLAIN_ENGINE, str(config.model), str(port)], environment)
    assert seen.read_text() == "200 503"
    assert status(port + 1, "/ready") == 0


STUBBORN_ENGINE = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    refused = 0
    def answer(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def do_GET(self):
        self.answer(200 if self.path == "/health" else 404)
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        Handler.refused += 1
        self.answer(500 if Handler.refused <= int(sys.argv[2]) else 200)
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
"""A server that is healthy, and fails the first requests."""


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry without delay."""
    for name in ("RETRY_SECONDS", "POLL_SECONDS"):
        monkeypatch.setattr(process, name, 0.05)


@pytest.mark.usefixtures("hasty")
def test_a_failed_warm_up_is_retried(tmp_path: Path) -> None:
    port, seen = free_port(), tmp_path / "seen"
    threading.Thread(target=watch, args=(port, seen), daemon=True).start()
    program = [sys.executable, "-c", STUBBORN_ENGINE, str(port), str(process.WARM_UP_TRIES - 1)]
    supervise(ServeConfig(MODEL, {"demo": None, "fr": "fr"}, host="127.0.0.1", port=port), program, {})
    assert seen.read_text() == "200 404"


@pytest.mark.usefixtures("hasty")
def test_a_healthy_engine_that_never_generates_is_stopped_and_reported() -> None:
    port = free_port()
    program = [sys.executable, "-c", STUBBORN_ENGINE, str(port), "1000"]
    with pytest.raises(
        RunFailure, match=r"the model demo cannot generate a token: HTTP Error 500.*in 5 tries"
    ) as failed:
        supervise(ServeConfig(MODEL, {"demo": None}, host="127.0.0.1", port=port), program, {})
    assert failed.value.failure is FailureClass.ENGINE_FAILED
    assert status(port, "/health") == 0


def test_every_engine_of_the_api_has_a_description() -> None:
    assert set(ENGINES) == set(Engine) - {Engine.AUTO}


def test_the_engines_are_found_without_importing_torch() -> None:
    code = "import sys, tunesmith_runtime.serve; print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    output = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "False"
