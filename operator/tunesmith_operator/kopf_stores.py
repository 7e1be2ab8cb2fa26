"""Empty replacements of kopf's stores: kopf keeps no state of a resource, and writes none to it.

They also save kopf's deep copy of each object of each event, which was two fifths of the operator's CPU time.
"""

from __future__ import annotations

from typing import Any

import kopf
from kopf._core.reactor.inventory import ResourceMemories, ResourceMemory


class NoDiffBase(kopf.DiffBaseStorage):
    """No resource has a last-handled state."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None


class NoProgress(kopf.ProgressStorage):
    """No handler has made progress."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None

    def purge(self, **_: Any) -> None:
        return None

    def touch(self, **_: Any) -> None:
        return None

    def clear(self, *, essence: Any) -> Any:
        return essence


class NoMemories(ResourceMemories):
    """Keep nothing between events: kopf would keep two kilobytes per resource forever.

    `kopf.operator` accepts other memories, although their class has no public name.
    """

    async def recall(self, raw_body: Any, *, noticed_by_listing: bool = False, **_: Any) -> ResourceMemory:
        return ResourceMemory(noticed_by_listing=noticed_by_listing)
