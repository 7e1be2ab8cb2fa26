"""Writes core/v1 Events about our resources, which `kubectl describe` shows. Nothing depends on them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime

from tunesmith_api.hashing import digest
from tunesmith_operator import metrics
from tunesmith_operator.client import ApiError, Client
from tunesmith_operator.plan.types import Event, Raw

COMPONENT = "tunesmith-operator"
MESSAGE_BYTES = 1024
"""Bound on an Event's message, by the API server's validation."""

log = logging.getLogger(__name__)


async def send_events(client: Client, resource: Raw, events: Iterable[Event], now: datetime, instance: str) -> None:
    """Write `events` of a transition away from the status that `resource` has, before the new status is written.

    A kill between the two loses no Event. Its name derives from the old status, or from the failure that it reports, so that
    writing it again has no effect.
    """
    for number, event in enumerate(events):
        try:
            await client.create(manifest(resource, event, number, now, instance))
        except ApiError as error:
            if not error.already_exists:
                metrics.EVENTS_SENT.labels("error").inc()
                log.warning("cannot write the Event %s: %s", event.reason, error)
                continue
        metrics.EVENTS_SENT.labels("ok").inc()


def manifest(resource: Raw, event: Event, number: int, now: datetime, instance: str) -> Raw:
    """The core/v1 Event for the `number`th event of the transition away from the status of `resource`.

    Its name identifies the occurrence, so that the API server accepts it once.
    """
    metadata = resource["metadata"]
    occurrence = event.once or [resource.get("status"), number]
    name = digest([metadata["uid"], occurrence, event.reason])[:16]
    time = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{metadata['name']}.{name}",
            "namespace": metadata["namespace"],
        },
        "involvedObject": {
            "apiVersion": resource["apiVersion"],
            "kind": resource["kind"],
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        },
        "type": str(event.type),
        "reason": event.reason,
        "message": _shorten(event.message),
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": instance,
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    }


def _shorten(message: str) -> str:
    data = message.encode()
    return message if len(data) <= MESSAGE_BYTES else data[: MESSAGE_BYTES - 3].decode(errors="ignore") + "..."
