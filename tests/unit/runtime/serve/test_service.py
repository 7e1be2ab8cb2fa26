"""Probes and draining of a server in this process."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import uvicorn
from openai import APITimeoutError, OpenAI
from starlette.testclient import TestClient

from tests.servers import free_port
from tunesmith_api.failures import FailureClass
from tunesmith_api.pods import Accelerator
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.serve.config import ServeConfig
from tunesmith_runtime.serve.generation import loop as loop_module
from tunesmith_runtime.serve.generation.loop import Piece, Row
from tunesmith_runtime.serve.openai.app import Service, create_app
from tunesmith_runtime.serve.openai.server import _load, serve


@pytest.fixture
def service(work: Path) -> Iterator[Service]:
    """A service as the engine loads it."""
    service = Service({"demo": None})
    fill(service, work)
    assert service.loop is not None
    yield service
    service.loop.close()


def fill(service: Service, work: Path) -> None:
    """Load the model into the service, as the engine does in a separate thread."""
    config = ServeConfig(work / "model", service.names, host="127.0.0.1", port=free_port())
    stop: asyncio.Future[None] = asyncio.new_event_loop().create_future()
    _load(config, service, stop)


def probes(service: Service) -> tuple[int, int]:
    """Status of /health and /ready."""
    client = TestClient(create_app(service))
    return client.get("/health").status_code, client.get("/ready").status_code


def test_a_loading_server_is_healthy_and_not_ready() -> None:
    assert probes(Service({"demo": None})) == (200, 503)


def test_health_fails_once_the_generating_thread_has_ended(service: Service) -> None:
    assert probes(service) == (200, 200)
    assert service.loop is not None
    service.loop.close()
    assert probes(service) == (503, 503)


def test_a_server_stopped_while_it_loads_does_not_become_ready(work: Path) -> None:
    service = Service({"demo": None}, draining=True)
    fill(service, work)
    assert service.loop is not None
    assert probes(service) == (200, 503)
    service.loop.close()


def test_a_503_has_retry_after(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    request = {"model": "demo", "prompt": "x", "max_tokens": 1}
    loading = TestClient(create_app(Service({"demo": None}))).post("/v1/completions", json=request)
    monkeypatch.setattr(loop_module, "MAX_WAITING", 0)
    full = TestClient(create_app(service)).post("/v1/completions", json=request)
    for answer in (loading, full):
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.json()["error"]["type"] == "server_error"


def test_a_request_that_can_never_be_answered_is_a_400_without_retry_after(service: Service) -> None:
    client = TestClient(create_app(service))
    for prompt in (["x"] * 2000, "kiwi " * 600, [5] * 600):
        answer = client.post("/v1/completions", json={"model": "demo", "prompt": prompt, "max_tokens": 1})
        assert answer.status_code == 400
        assert "Retry-After" not in answer.headers


HELLO: Any = [{"role": "user", "content": "What is a kiwi?"}]
HELD_AT = 5
"""Tokens after which a watched row is held until its reader has gone."""


class Watched:
    """The rows that were submitted to a service's loop, and how many tokens each got; no row can end before it is cancelled."""

    def __init__(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        assert service.loop is not None
        self.rows: list[Row] = []
        self.tokens: list[int] = []
        self._submit = service.loop.submit
        monkeypatch.setattr(service.loop, "submit", self.submit)

    def submit(self, rows: Sequence[Row]) -> None:
        """Pass rows on, and count their tokens."""
        for row in rows:
            index, emit = len(self.rows), row.emit
            self.rows.append(row)
            self.tokens.append(0)

            def counted(piece: Piece, row: Row = row, index: int = index, emit: Any = emit) -> None:
                self.tokens[index] += piece.choice is not None
                emit(piece)
                if self.tokens[index] == HELD_AT:
                    wait_until(lambda: row.cancelled)

            row.emit = counted
        self._submit(rows)


def wait_until(met: Callable[[], bool]) -> None:
    """Return when the condition is met. Raises AssertionError after a minute."""
    end = time.monotonic() + 60
    while not met():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def url(service: Service) -> Iterator[str]:
    """The service over HTTP, from a thread of this process."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(create_app(service), "127.0.0.1", port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started)
    yield f"http://127.0.0.1:{port}/v1"
    server.should_exit = True
    thread.join()


def test_rows_of_a_disconnected_client_are_cancelled(
    service: Service, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(service, monkeypatch)
    client = OpenAI(base_url=url, api_key="none", max_retries=0, timeout=120)
    settings: Any = {"model": "demo", "temperature": 0, "max_tokens": 400, "logit_bias": {"2": -100}}
    stream = client.chat.completions.create(messages=HELLO, stream=True, **settings)
    next(iter(stream))
    stream.close()
    with pytest.raises(APITimeoutError):
        client.with_options(timeout=1).completions.create(prompt="one", **settings)
    assert client.completions.create(prompt="two", **(settings | {"max_tokens": 3})).usage
    assert [row.cancelled for row in watched.rows[:2]] == [True, True]
    assert max(watched.tokens[:2]) <= HELD_AT


def read_while_it_stops(url: str) -> list[str]:
    """Start to read a long answer, send SIGTERM, and read on when the port is closed; return the finish reasons."""
    # The kernel buffers only a small part of the megabytes of an answer, so it can't be complete before it is read.
    narrow = httpx.HTTPTransport(socket_options=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)])
    http: Any = httpx.Client(transport=narrow)  # the client's own type of it differs with its version
    client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120, http_client=http)
    options: Any = {"temperature": 0, "max_tokens": 400, "logit_bias": {"2": -100}, "n": 8}
    options |= {"logprobs": True, "top_logprobs": 20, "messages": HELLO}
    try:
        wait_until(lambda: status(f"{url}/ready") == 200)
        stream = client.chat.completions.create(model="demo", stream=True, **options)
        first = next(iter(stream))
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
    wait_until(lambda: status(f"{url}/health") == 0)
    return [choice.finish_reason for chunk in (first, *stream) for choice in chunk.choices if choice.finish_reason]


def status(url: str) -> int:
    """HTTP status of a GET; 0 where nothing listens."""
    try:
        return httpx.get(url, timeout=10).status_code
    except httpx.TransportError:
        return 0


def test_a_stopping_server_refuses_new_requests_and_finishes_running_requests(work: Path) -> None:
    port = free_port()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read_while_it_stops, f"http://127.0.0.1:{port}")
        serve(ServeConfig(work / "model", {"demo": None}, host="127.0.0.1", port=port))
        assert reading.result() == ["length"] * 8


@pytest.mark.parametrize(
    ("accelerator", "why"), [("nvidia", "no such device"), ("amd", "no such device"), ("ascend", "no torch_npu")]
)
def test_a_model_for_a_device_is_not_served_by_the_cpu(work: Path, accelerator: str, why: str) -> None:
    """The engine stops with BadSpec before it loads anything; this machine has neither device."""
    if accelerator == "nvidia" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    config = ServeConfig(work / "model", {"demo": None}, accelerator=Accelerator(accelerator), port=free_port())
    loop = asyncio.new_event_loop()
    stop: asyncio.Future[None] = loop.create_future()
    _load(config, Service({"demo": None}), stop)
    with pytest.raises(RunFailure, match=why) as failed:
        loop.run_until_complete(stop)
    assert failed.value.failure is FailureClass.BAD_SPEC
