"""kopf's stores, turned off: nothing is remembered of a resource, so that nothing is written to it.

kopf would also copy each object of each event to compare it with what it remembers, which was two fifths of the
operator's work.
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
    """Nothing is kept of a resource between its events: kopf would keep two kilobytes of each for ever. (kopf.operator
    takes other memories; that their class has no public name is an oversight.)"""

    async def recall(self, raw_body: Any, *, noticed_by_listing: bool = False, **_: Any) -> ResourceMemory:
        return ResourceMemory(noticed_by_listing=noticed_by_listing)
