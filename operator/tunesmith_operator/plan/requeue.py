"""Delays after which a resource is reconciled although no watch event has arrived. All values are in seconds."""

from __future__ import annotations

from datetime import datetime

IMMEDIATELY = 1.0
"""The next step follows from the status that this plan writes."""
EVENT_LATENCY = 1.0
"""Time within which an Event follows its cause."""
QUEUE_LATENCY = 2.0
"""Time within which a queue reports on a new Job."""
LEFTOVER_INTERVAL = 5.0
"""Check whether garbage collection has removed a child of a deleted resource of the same name."""
POLL_INTERVAL = 15.0
"""Check what no watch event reports: Events, pods on unresponsive nodes."""
CREATED_TIMEOUT = 30.0
"""Time within which a watch event must report a created Job."""
REFUSED_INTERVAL = 30.0
"""Try again what the API server has rejected."""
CONFLICT_INTERVAL = 30.0
"""Check whether a foreign object still has the name of a child."""


def earliest(*seconds: float | None) -> float | None:
    """Return the shortest delay; None means no delay."""
    return min((delay for delay in seconds if delay is not None), default=None)


def seconds_until(moment: datetime | None, now: datetime) -> float | None:
    """Return the seconds until `moment`: 0 if it is past, None if it is None."""
    return None if moment is None else max((moment - now).total_seconds(), 0.0)
