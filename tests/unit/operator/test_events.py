"""Sending Events."""

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


def test_a_transition_is_sent_once_and_each_of_its_events_has_its_own_name() -> None:
    client = SimulatedCluster()
    events = [Event(EventType.NORMAL, "Running", "a"), Event(EventType.WARNING, "OOMKilled", "b")]
    for _ in range(2):
        asyncio.run(send_events(client, RESOURCE, events, NOW, "pod-1"))
    sent = list(client.objects.values())
    assert [event["reason"] for event in sent] == ["Running", "OOMKilled"]
    assert sent[0]["involvedObject"]["uid"] == "u"


def test_a_rejected_event_is_ignored_and_a_long_message_is_cut() -> None:
    client = SimulatedCluster()
    asyncio.run(send_events(client, RESOURCE, [Event(EventType.NORMAL, "A", "ä" * 5000)], NOW, "pod-1"))
    [event] = client.objects.values()
    assert len(event["message"].encode()) <= MESSAGE_BYTES
    client.errors[("create", "Event")] = ApiError("POST", 403, "Forbidden", "no")
    asyncio.run(send_events(client, RESOURCE, [Event(EventType.NORMAL, "B", "b")], NOW, "pod-1"))


def test_a_failure_is_sent_once_even_if_status_changed_after_its_event() -> None:
    """For example after a kill between the two, and then an edit of the spec."""
    client = SimulatedCluster()
    for status, once in (({"phase": "Running"}, "a"), ({"phase": "Suspended"}, "a"), ({"phase": "Suspended"}, "b")):
        event = Event(EventType.WARNING, "Preempted", "the pod was deleted", once)
        asyncio.run(send_events(client, {**RESOURCE, "status": status}, [event], NOW, "pod-1"))
    assert len(client.objects) == 2
