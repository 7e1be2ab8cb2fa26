"""Kubernetes Events about a pod or a Job."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tunesmith_operator.plan.names import metadata, name_of, uid_of
from tunesmith_operator.plan.types import Raw


def latest_event(involved: Raw, events: Sequence[Raw], reasons: Collection[str]) -> Raw | None:
    """Return the newest Event about `involved` with one of `reasons`."""

    def matches(event: Raw) -> bool:
        reference = event.get("involvedObject") or {}
        return (
            event.get("reason") in reasons
            and uid_of(involved) == reference.get("uid", uid_of(involved))
            and reference.get("name") == name_of(involved)
        )

    return max((event for event in events if matches(event)), key=event_time, default=None)


def event_time(event: Raw) -> str:
    """Return when an Event last occurred (RFC 3339), from whichever field its source has set."""
    times = (event.get(name) for name in ("lastTimestamp", "eventTime", "firstTimestamp"))
    return str(next((time for time in times if time), "") or metadata(event).get("creationTimestamp") or "")
