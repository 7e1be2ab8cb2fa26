"""Progress is pushed with the pod's token, newest first, and never holds up the run."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.servers import free_port
from tunesmith_api.run import ProgressReport
from tunesmith_runtime.progress_push import ProgressPusher


class Receiver(ThreadingHTTPServer):
    """Takes pushes, and answers with `status`."""

    def __init__(self, status: int = 204) -> None:
        self.status, self.bodies, self.tokens = status, list[dict[str, Any]](), list[str]()
        self.hold = threading.Event()
        self.hold.set()
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1/progress"


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.hold.wait(30)
        self.server.bodies.append(body)
        self.server.tokens.append(self.headers["Authorization"])
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep the tests' output clean."""


@pytest.fixture
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    server = Receiver(getattr(request, "param", 204))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.hold.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_last_report_arrives_with_the_token(receiver: Receiver) -> None:
    with ProgressPusher(receiver.url, "secret", interval=0.05) as progress:
        for step in range(1, 101):
            progress.push(ProgressReport(stage="train", step=step, total_steps=100))
    assert receiver.bodies[-1]["step"] == 100
    assert set(receiver.tokens) == {"Bearer secret"}
    assert len(receiver.bodies) < 100


def test_a_receiver_that_hangs_does_not_delay_the_run(receiver: Receiver) -> None:
    receiver.hold.clear()
    progress = ProgressPusher(receiver.url, "t", interval=0.01)
    for step in range(1000):
        progress.push(ProgressReport(stage="train", step=step))
    assert receiver.bodies == []
    receiver.hold.set()
    progress.close()


@pytest.mark.parametrize("receiver", [401], indirect=True)
def test_an_unknown_token_is_retried_with_a_single_warning(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    with ProgressPusher(receiver.url, "early", interval=0.01) as progress:
        for step in (1, 2, 3):
            progress.push(ProgressReport(stage="train", step=step))
            while len(receiver.bodies) < step:
                time.sleep(0.01)
        receiver.status = 204
        progress.push(ProgressReport(stage="train", step=4))
    assert [body["step"] for body in receiver.bodies] == [1, 2, 3, 4]
    assert [record.getMessage().rpartition("progress failed: ")[2] for record in caplog.records] == ["401 Unauthorized"]


@pytest.mark.parametrize("receiver", [403], indirect=True)
def test_a_push_that_is_forbidden_is_the_last(receiver: Receiver) -> None:
    progress = ProgressPusher(receiver.url, "wrong", interval=0.01)
    progress.push(ProgressReport(stage="train", step=1))
    thread = progress._thread
    assert thread is not None
    thread.join(20)
    progress.push(ProgressReport(stage="train", step=2))
    progress.close()
    assert [body["step"] for body in receiver.bodies] == [1]


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("url", [None, f"http://127.0.0.1:{free_port()}/v1/progress", "not a url"])
def test_a_missing_receiver_is_not_a_failure(url: str | None) -> None:
    with ProgressPusher(url, None, interval=0.01) as progress:
        progress.push(ProgressReport(stage="train", step=1))
