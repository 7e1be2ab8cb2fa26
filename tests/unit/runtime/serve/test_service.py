"""What the probes say of a server in this process, whatever becomes of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.servers import free_port
from tunesmith_runtime.serve.engines.transformers import _load
from tunesmith_runtime.serve.openai.app import Service, create_app
from tunesmith_runtime.serve.served import Served


@pytest.fixture
def service(work: Path) -> Service:
    """A service as the engine loads it."""
    service = Service({"demo": None})
    fill(service, work)
    return service


def fill(service: Service, work: Path) -> None:
    """Load the model into it, as the engine does in a thread of its own."""
    what = Served(work / "model", service.names, host="127.0.0.1", port=free_port())
    stop: asyncio.Future[None] = asyncio.new_event_loop().create_future()
    _load(what, service, stop)


def probes(service: Service) -> tuple[int, int]:
    """Status of /health and /ready."""
    client = TestClient(create_app(service))
    return client.get("/health").status_code, client.get("/ready").status_code


def test_while_it_loads_it_is_healthy_and_not_ready() -> None:
    assert probes(Service({"demo": None})) == (200, 503)


def test_where_nothing_generates_any_more_the_kubelet_is_told(service: Service) -> None:
    assert probes(service) == (200, 200)
    assert service.loop is not None
    service.loop.close()
    assert probes(service) == (503, 503)


def test_a_server_that_is_asked_to_stop_while_it_loads_does_not_become_ready(work: Path) -> None:
    service = Service({"demo": None}, draining=True)
    fill(service, work)
    assert service.loop is not None
    assert probes(service) == (200, 503)
    service.loop.close()
