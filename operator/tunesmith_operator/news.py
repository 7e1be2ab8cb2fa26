"""Which events of a child are worth a look: an autoscaler writes into its status every 15 seconds while load moves."""

from __future__ import annotations

from tunesmith_api.hashing import digest
from tunesmith_operator.client import Raw

TALKATIVE = frozenset({"HorizontalPodAutoscaler", "PodDisruptionBudget"})
"""Kinds whose status says much that no plan goes by."""


class News:
    """What was heard last of each child of a talkative kind, as a digest."""

    def __init__(self) -> None:
        self._heard: dict[tuple[str, str, str], str] = {}

    def is_news(self, event_type: str | None, kind: str, child: Raw) -> bool:
        """Whether an event tells of what a plan goes by: that it is there, its spec, and what its conditions say."""
        if kind not in TALKATIVE:
            return True
        metadata = child["metadata"]
        key = (kind, metadata["namespace"], metadata["name"])
        now = None if event_type == "DELETED" else digest(_told(child))
        before = self._heard.pop(key, None)
        if now:
            self._heard[key] = now
        return now is None or now != before


def _told(child: Raw) -> list[object]:
    metadata = child["metadata"]
    conditions = (child.get("status") or {}).get("conditions") or ()
    return [
        [metadata.get(name) for name in ("uid", "deletionTimestamp", "labels", "ownerReferences")],
        child.get("spec"),
        [[one.get(name) for name in ("type", "status", "reason")] for one in conditions],
    ]
