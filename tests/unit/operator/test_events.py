from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from tests.unit.operator.simulated_cluster import SimulatedCluster
from tunesmith_operator.client import ApiError
from tunesmith_operator.events import MESSAGE_BYTES, send_events
from tunesmith_operator.plan.types import Event, EventType, Raw

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RESOURCE: Raw = {
    "apiVersion": "tunesmith.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "support", "namespace": "team", "uid": "u", "resourceVersion": "77"},
}


def test_each_event_of_a_transition_is_written_once() -> None:
    client = SimulatedCluster()
    events = [Event(EventType.NORMAL, "Running", "a"), Event(EventType.WARNING, "OOMKilled", "b")]
    for _ in range(2):
        asyncio.run(send_events(client, RESOURCE, events, NOW, "pod-1"))
    events_sent = list(client.objects.values())
    assert [event["reason"] for event in events_sent] == ["Running", "OOMKilled"]
    assert events_sent[0]["involvedObject"]["uid"] == "u"


def test_an_event_that_cannot_be_written_is_no_failure_and_a_long_message_is_truncated() -> None:
    client = SimulatedCluster()
    asyncio.run(send_events(client, RESOURCE, [Event(EventType.NORMAL, "A", "ä" * 5000)], NOW, "pod-1"))
    [event] = client.objects.values()
    assert len(event["message"].encode()) <= MESSAGE_BYTES
    client.errors[("create", "Event")] = ApiError("POST", 403, "Forbidden", "no")
    asyncio.run(send_events(client, RESOURCE, [Event(EventType.NORMAL, "B", "b")], NOW, "pod-1"))


def test_a_failure_is_reported_once_also_if_an_edit_comes_between_event_and_status() -> None:
    """For example a kill and then an edit: the old status of the second Event is another."""
    client = SimulatedCluster()
    for status, once in (({"phase": "Running"}, "a"), ({"phase": "Suspended"}, "a"), ({"phase": "Suspended"}, "b")):
        event = Event(EventType.WARNING, "Preempted", "the pod was deleted", once)
        asyncio.run(send_events(client, {**RESOURCE, "status": status}, [event], NOW, "pod-1"))
    assert len(client.objects) == 2
