"""Watch stream of one kind of children.

kopf does not watch children: it spends a task and over a millisecond of CPU on each event, ten times as much as reading
it, and a pod has six events in its life. Nor does kopf report gaps in a stream, in which deletions are lost.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing
from typing import Protocol

from tunesmith_operator import metrics
from tunesmith_operator.client import ApiError, Client
from tunesmith_operator.plan.types import Raw

CHILD_KINDS = (
    "Job", "Pod", "Deployment", "Service", "ControllerRevision", "HorizontalPodAutoscaler", "PodDisruptionBudget",
)  # fmt: skip
"""The kinds of children whose changes wake their resource."""
LISTED_KINDS = frozenset({"Job"})
"""Kinds of which a stream also delivers the existing objects when it starts: the Jobs whose pods may report progress."""
SELECTOR = {"app.kubernetes.io/managed-by": "tunesmith"}
BACKOFF_SECONDS = (0, 1, 1, 2, 3, 5, 8, 13, 21, 30, 30, 30)
"""Delays before an interrupted stream is opened again; after the last one the process ends and its pod restarts."""
STABLE_SECONDS = 30.0
"""A stream that was open this long resets the backoff: many proxies cut silent connections."""

log = logging.getLogger(__name__)


class EventHandler(Protocol):
    """The receiver of watch events."""

    def on_child_event(self, event_type: str | None, kind: str, child: Raw) -> None:
        """Handle an event; `event_type` is None for an item of a list."""

    def on_stream_start(self, kind: str, namespace: str | None, version: str | None) -> None:
        """All events after `version` follow; earlier ones may be lost. None: the stream is interrupted."""


async def inform(client: Client, kind: str, namespace: str | None, handler: EventHandler) -> None:
    """Deliver the events of `kind` in `namespace` (None: in all) until cancelled.

    Raises ApiError if the stream cannot be opened for two and a half minutes.
    """
    version: str | None = None
    failures, clock = 0, asyncio.get_running_loop().time
    while True:
        opened = clock()
        try:
            if version is None:
                version = await _start(client, kind, namespace, handler)
            async with aclosing(client.watch(kind, namespace, SELECTOR, version)) as events:
                async for event_type, child in events:
                    failures, version = 0, child["metadata"]["resourceVersion"]
                    _deliver(handler, event_type, kind, child)
            await asyncio.sleep(1)  # API servers end streams regularly
        except ApiError as error:
            if clock() - opened >= STABLE_SECONDS:
                failures = 0
            if error.status == 410:
                log.info("the watch of %s expired and starts again with a list: %s", kind, error)
                version = None
                handler.on_stream_start(kind, namespace, None)
            if failures == len(BACKOFF_SECONDS):
                raise
            log.log(logging.INFO if failures == 0 else logging.WARNING, "the watch of %s failed: %s", kind, error)
            await asyncio.sleep(BACKOFF_SECONDS[failures])
            failures += 1


async def _start(client: Client, kind: str, namespace: str | None, handler: EventHandler) -> str:
    """Announce a stream. Returns the version that it starts from."""
    version = await client.version(kind, namespace)
    handler.on_stream_start(kind, namespace, version)
    if kind in LISTED_KINDS:
        async for child in client.each(kind, namespace, SELECTOR):
            handler.on_child_event(None, kind, child)
    return version


def _deliver(handler: EventHandler, event_type: str, kind: str, child: Raw) -> None:
    metrics.LAST_WATCH_EVENT.labels(kind).set(time.time())
    if event_type != "BOOKMARK":
        metrics.WATCH_EVENTS.labels(kind).inc()
        handler.on_child_event(event_type, kind, child)
