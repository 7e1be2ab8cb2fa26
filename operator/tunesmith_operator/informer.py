"""A stream of one kind of children: what happens to them, told as it happens, for ever.

kopf is not asked to watch them: it takes a task and more than a millisecond of CPU for each event, ten times as long as reading
it, and a pod's life has six; nor does it tell of a gap in its stream, in which a deletion can be missed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing
from typing import Protocol

from tunesmith_operator import metrics
from tunesmith_operator.client import ApiError, Client, Raw

CHILD_KINDS = (
    "Job", "Pod", "Deployment", "Service", "ControllerRevision", "HorizontalPodAutoscaler", "PodDisruptionBudget",
)  # fmt: skip
"""The kinds of children whose changes wake their resource."""
TOLD_FROM_THE_START = frozenset({"Job"})
"""Of these it also tells what there is when a stream begins: whose pods may report."""
SELECTOR = {"app.kubernetes.io/managed-by": "tunesmith"}
PAUSES = (0, 1, 1, 2, 3, 5, 8, 13, 21, 30, 30, 30)
"""Seconds before a stream that cannot be had is tried again; then the process ends and begins anew."""

LASTING_SECONDS = 30.0
"""A stream that was there for so long could be had: silence is no failure, and many a proxy cuts what is silent."""

log = logging.getLogger(__name__)


class Audience(Protocol):
    """Who is told."""

    def heard_child(self, event_type: str | None, kind: str, child: Raw) -> None:
        """Something happened to `child`; `event_type` is None for what a list holds."""

    def stream_begins(self, kind: str, namespace: str | None, version: str | None) -> None:
        """All that happens after `version` will be told of; what happened before may have been missed. None: there is
        no stream now."""


async def inform(client: Client, kind: str, namespace: str | None, audience: Audience) -> None:
    """Tell `audience` of `kind` in `namespace` (None: in all).

    Ends with an ApiError when the stream cannot be kept up for two and a half minutes.
    """
    version, failures = None, 0
    while True:
        began = asyncio.get_running_loop().time()
        try:
            if version is None:
                beginning = await client.version(kind, namespace)
                audience.stream_begins(kind, namespace, beginning)
                if kind in TOLD_FROM_THE_START:
                    async for thing in client.each(kind, namespace, SELECTOR):
                        audience.heard_child(None, kind, thing)
                version = beginning  # only now: a list that failed is asked for again
            async with aclosing(client.watch(kind, namespace, SELECTOR, version)) as events:
                async for event_type, thing in events:
                    failures, version = 0, thing["metadata"]["resourceVersion"]
                    metrics.LAST_WATCH_EVENT.labels(kind).set(time.time())
                    if event_type != "BOOKMARK":
                        metrics.WATCH_EVENTS.labels(kind).inc()
                        audience.heard_child(event_type, kind, thing)
            await asyncio.sleep(1)  # servers end streams now and then
        except ApiError as error:
            if asyncio.get_running_loop().time() - began >= LASTING_SECONDS:
                failures = 0
            if error.status == 410:
                log.info("the stream of %s begins anew: %s", kind, error)
                version = None
                audience.stream_begins(kind, namespace, None)
            if failures == len(PAUSES):
                raise
            log.log(logging.INFO if failures == 0 else logging.WARNING, "no stream of %s: %s", kind, error)
            await asyncio.sleep(PAUSES[failures])
            failures += 1
