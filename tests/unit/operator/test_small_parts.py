"""Configuration, log, health, Events, command line."""

from __future__ import annotations

import asyncio
import json
import logging
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

from tests.unit.operator.memory_client import MemoryClient
from tunesmith_api.failures import FAILURES, FailureClass
from tunesmith_operator import cli
from tunesmith_operator.client import RESOURCES, ApiError
from tunesmith_operator.configuration import load_config
from tunesmith_operator.events import MESSAGE_BYTES, send_events
from tunesmith_operator.health import Health
from tunesmith_operator.log import JsonFormatter, about, soften
from tunesmith_operator.plan.types import Event, EventType, Raw
from tunesmith_operator.queue import WorkQueue
from tunesmith_operator.resources import ResourceKey
from tunesmith_operator.version import VERSION

ROOT = Path(__file__).resolve().parents[3]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RESOURCE: Raw = {
    "apiVersion": "tunesmith.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "support", "namespace": "team", "uid": "u", "resourceVersion": "77"},
}


def test_the_version_is_that_of_the_distribution() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION


def test_paths_are_those_of_the_kubernetes_api() -> None:
    assert RESOURCES["Pod"].path("team", "a") == "/api/v1/namespaces/team/pods/a"
    assert RESOURCES["Job"].path(None) == "/apis/batch/v1/jobs"
    path = RESOURCES["EvalJob"].path("team", "a", "status")
    assert path == "/apis/tunesmith.dev/v1alpha1/namespaces/team/evaljobs/a/status"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "No such file"),
        ("a: [", "not YAML"),
        ("{}", "images: Field required"),
        ("{images: {runtime: r}, store: {uri: s3://store}, wokers: 3}", "wokers"),
        ("{images: {runtime: r}, store: {uri: s3://store}, workers: 0}", "workers"),
        ("[]", "images: Field required"),
        (
            "{images: {runtime: r}, store: {uri: s3://store}, leaderElection: {leaseSeconds: 10}}",
            "leaderElection: Value error, leaseSeconds must be more than renewSeconds",
        ),
        (
            "{images: {runtime: r}, store: {uri: s3://store}, leaderElection: {renewSeconds: 2}}",
            "and that more than retrySeconds: they are 15, 2 and 2",
        ),
    ],
)
def test_a_wrong_configuration_is_one_sentence_with_the_file_and_the_field(
    tmp_path: Path, text: str | None, says: str
) -> None:
    file = tmp_path / "config.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SystemExit) as caught:
        load_config(str(file))
    assert str(file) in str(caught.value)
    assert says in str(caught.value)


def test_a_configuration_is_found_by_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("{images: {runtime: r}, store: {uri: s3://store}, client: {qps: 7, burst: 9}}")
    monkeypatch.setenv("TUNESMITH_CONFIG", str(file))
    assert load_config().client.qps == 7


@pytest.mark.parametrize(
    ("message", "level"), [("attempt #1/12 failed; will retry: GET", "WARNING"), ("attempt failed", "ERROR")]
)
def test_what_kopf_will_try_again_is_a_warning_and_the_last_attempt_an_error(message: str, level: str) -> None:
    record = logging.LogRecord("kopf", logging.ERROR, __file__, 1, message, (), None)
    assert soften(record)
    assert record.levelname == level


def test_a_line_of_the_log_is_json_with_the_resource_it_is_about() -> None:
    record = logging.LogRecord("x", logging.WARNING, __file__, 1, "a\n%s", ("b",), None)
    with about(ResourceKey("EvalJob", "team", "eval")):
        line = JsonFormatter().format(record)
    assert "\n" not in line
    entry = json.loads(line)
    assert (entry["level"], entry["message"]) == ("warning", "a\nb")
    assert (entry["kind"], entry["namespace"], entry["name"]) == ("EvalJob", "team", "eval")
    assert "kind" not in json.loads(JsonFormatter().format(record))


async def test_livez_fails_for_a_dead_worker_a_hung_worker_and_a_loop_that_stood_still_only() -> None:
    clock = [0.0]
    queue: WorkQueue[str] = WorkQueue()
    health = Health(queue, lambda: clock[0])
    async with TestClient(TestServer(health.application())) as http:

        async def status(path: str) -> int:
            async with http.get(path) as answer:
                return answer.status

        assert await status("/livez") == 200
        assert await status("/readyz") == 503
        health.ready = True
        assert await status("/readyz") == 200
        clock[0] = 100.0
        assert await status("/livez") == 500
        clock[0] = 1.0
        assert await status("/livez") == 200
        ended = asyncio.create_task(asyncio.sleep(0), name="worker 3")
        await ended
        health.tasks = [ended]
        async with http.get("/livez") as answer:
            assert (answer.status, await answer.text()) == (500, "worker 3 has ended\n")


async def test_metrics_are_exposed_for_prometheus() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    async with TestClient(TestServer(Health(queue, lambda: 0.0).application())) as http, http.get("/metrics") as answer:
        text = await answer.text()
    assert "tunesmith_queue_depth 1.0" in text
    assert f'version="{VERSION}"' in text


def test_the_same_transition_is_told_once_and_two_of_it_are_told_apart() -> None:
    client = MemoryClient()
    events = [Event(EventType.NORMAL, "Running", "a"), Event(EventType.WARNING, "OOMKilled", "b")]
    for _ in range(2):
        asyncio.run(send_events(client, RESOURCE, events, NOW, "pod-1"))
    told = list(client.things.values())
    assert [event["reason"] for event in told] == ["Running", "OOMKilled"]
    assert told[0]["involvedObject"]["uid"] == "u"


def test_an_event_that_cannot_be_written_is_no_failure_and_a_long_one_is_cut() -> None:
    client = MemoryClient()
    asyncio.run(send_events(client, RESOURCE, [Event(EventType.NORMAL, "A", "ä" * 5000)], NOW, "pod-1"))
    [event] = client.things.values()
    assert len(event["message"].encode()) <= MESSAGE_BYTES
    client.refuse[("create", "Event")] = ApiError("POST", 403, "Forbidden", "no")
    asyncio.run(send_events(client, RESOURCE, [Event(EventType.NORMAL, "B", "b")], NOW, "pod-1"))


def test_the_same_failure_is_told_once_whatever_came_between_its_event_and_the_status() -> None:
    """A kill, say, and then an edit: the status it leads away from is another one."""
    client = MemoryClient()
    for status, once in (({"phase": "Running"}, "a"), ({"phase": "Suspended"}, "a"), ({"phase": "Suspended"}, "b")):
        event = Event(EventType.WARNING, "Preempted", "the pod was deleted", once)
        asyncio.run(send_events(client, {**RESOURCE, "status": status}, [event], NOW, "pod-1"))
    assert len(client.things) == 2


@pytest.mark.parametrize("failure", FailureClass)
def test_every_failure_can_be_explained_by_class_and_by_exit_code(
    failure: FailureClass, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["explain", failure.lower()])
    by_class = capsys.readouterr().out
    assert FAILURES[failure].hint in by_class
    if (code := FAILURES[failure].exit_code) is not None:
        cli.main(["explain", str(code)])
        assert capsys.readouterr().out == by_class


def test_an_unknown_failure_is_told_with_the_ones_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["explain", "Sadness"])
    assert "OOMKilled" in capsys.readouterr().err


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["version"])
    assert capsys.readouterr().out == f"{VERSION}\n"
