"""MLflow's REST API on 127.0.0.1: as much of it as a run uses, in memory, and the real server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.servers import free_port

START_SECONDS = 600
"""MLflow imports for minutes on a busy machine."""
MLFLOW = "mlflow==3.17.2"


@dataclass
class Api:
    """What the server holds, and every request as (path, content, headers)."""

    experiments: dict[str, str] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    failure: int | None = None
    """Status code of all answers, if it is set."""
    url: str = ""

    def answer(self, path: str, content: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.failure:
            return self.failure, {"error_code": "PERMISSION_DENIED", "message": "not allowed"}
        name = path.rsplit("/mlflow/", 1)[1]
        return getattr(self, name.replace("/", "_").replace("-", "_"))(content)

    def experiments_get_by_name(self, content: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        found = self.experiments.get(content["experiment_name"])
        missing = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such experiment"}
        return (200, {"experiment": {"experiment_id": found}}) if found else (404, missing)

    def experiments_create(self, content: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        assert content["name"] not in self.experiments
        self.experiments[content["name"]] = str(len(self.experiments) + 1)
        return 200, {"experiment_id": self.experiments[content["name"]]}

    def runs_search(self, content: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        wanted = re.fullmatch(r'tags\.`(.+)` = "(.+)"', content["filter"])
        assert wanted
        found = [
            {"info": {"run_id": identifier}}
            for identifier, run in self.runs.items()
            if run["tags"].get(wanted[1]) == wanted[2] and run["experiment"] in content["experiment_ids"]
        ]
        return 200, {"runs": found} if found else {}

    def runs_create(self, content: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        identifier = f"run-{len(self.runs) + 1}"
        tags = {each["key"]: each["value"] for each in content["tags"]}
        self.runs[identifier] = {
            "experiment": content["experiment_id"], "name": content["run_name"], "tags": tags,
            "params": {}, "metrics": [], "states": ["RUNNING"],
        }  # fmt: skip
        return 200, {"run": {"info": {"run_id": identifier}}}

    def runs_update(self, content: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.runs[content["run_id"]]["states"].append(content["status"])
        return 200, {}

    def runs_log_batch(self, content: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        run = self.runs[content["run_id"]]
        assert len(content.get("metrics", [])) <= 1000
        assert len(content.get("params", [])) <= 100
        run["metrics"] += content.get("metrics", [])
        run["params"] |= {each["key"]: each["value"] for each in content.get("params", [])}
        return 200, {}

    def steps(self, run: str, metric: str) -> list[int]:
        """Steps of the points of a metric."""
        return [point["step"] for point in self.runs[run]["metrics"] if point["key"] == metric]


@contextmanager
def mlflow_api() -> Iterator[Api]:
    """Yield a server that holds nothing yet."""
    api = Api()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply({key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()})

        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers["Content-Length"]))
            self.reply(json.loads(text, parse_constant=refuse))

        def reply(self, content: dict[str, Any]) -> None:
            path = urlsplit(self.path).path
            api.requests.append((path, content, dict(self.headers)))
            status, found = api.answer(path, content)
            body = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def mlflow_command() -> Path:
    """The command mlflow, in an environment of its own that is installed once below the cache folder."""
    cache = Path(os.environ.get("TUNESMITH_CACHE") or Path.home() / ".cache/tunesmith")
    folder, uv = cache / MLFLOW.replace("==", "-"), cache / "tools/bin/uv"
    if not (folder / "bin/mlflow").exists():
        subprocess.run([str(uv), "venv", "--quiet", "--clear", str(folder)], check=True)
        install = [str(uv), "pip", "install", "--quiet", "--python", str(folder / "bin/python"), MLFLOW]
        subprocess.run(install, check=True)
    return folder / "bin/mlflow"


@contextmanager
def real_mlflow(folder: Path) -> Iterator[str]:
    """Yield the URL of MLflow's own server."""
    port = free_port()
    store = [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    command = [str(mlflow_command()), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", *store]
    url, log = f"http://127.0.0.1:{port}", folder / "mlflow.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _is_up(url):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.5)
            yield url
        finally:
            os.killpg(process.pid, 15)
            process.wait()


def _is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
