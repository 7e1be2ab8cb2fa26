"""Cache of the children of unsettled resources, kept current by the watch streams of their kinds.

A resource's children are listed once, from a list that is at least as new as the start of the stream; from then on watch
events keep them current. A gap in a stream, an error, and the end of the resource invalidate them. The cache may be
stale: it is good enough for a status, and no child is created, changed or deleted because of it (see controller.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tunesmith_operator.child_digest import child_digest
from tunesmith_operator.codec import pack, unpack
from tunesmith_operator.plan.names import UID_LABEL, label
from tunesmith_operator.plan.types import Key, Raw
from tunesmith_operator.resources import ResourceKey

DELETED = b""
EXPECTED = ""
"""The digest of a child whose state is the expected one; also assumed of a child that no event was about."""


@dataclass
class _Family:
    """The children of one resource."""

    uid: str
    """Of the resource: a new resource of the same name is another one."""
    objects: dict[Key, tuple[int, bytes]] = field(default_factory=dict)
    """resourceVersion and packed object; DELETED for a deleted child, so that an older list does not revive it."""
    listed: set[str] = field(default_factory=set)
    """Kinds that are complete."""
    digests: dict[Key, str] = field(default_factory=dict)
    """By child, the digest of its last event."""
    is_new: bool = False
    """Whether the resource was created while this process led and watched: it has no children but those cached."""

    def put(self, key: Key, child: Raw, deleted: bool = False) -> None:
        """Store `child` unless a newer version is stored."""
        version = int(child["metadata"]["resourceVersion"])
        if self.objects.get(key, (-1, DELETED))[0] < version:
            self.objects[key] = version, DELETED if deleted else pack(child)

    def living(self, kind: str) -> list[Raw]:
        return [unpack(data) for key, (_, data) in self.objects.items() if key.kind == kind and data != DELETED]


class ChildCache:
    """Children by resource. A kind without a watch stream is never cached."""

    def __init__(self) -> None:
        self._families: dict[ResourceKey, _Family] = {}
        self._streams: dict[tuple[str, str | None], str] = {}

    def __len__(self) -> int:
        return len(self._families)

    def on_stream_start(self, kind: str, namespace: str | None, version: str | None) -> None:
        """A stream delivers all events after `version`; None: the stream is interrupted."""
        self._families.clear()
        self._streams.pop((kind, namespace), None)
        if version is not None:
            self._streams[(kind, namespace)] = version

    def stream_version(self, kind: str, namespace: str) -> str | None:
        """The resourceVersion at which the stream of a kind started: lists must not be older. None without a stream."""
        return self._streams.get((kind, namespace)) or self._streams.get((kind, None))

    def on_event(self, owner: ResourceKey, kind: str, child: Raw, deleted: bool) -> bool:
        """Store a child, whose labels name `owner`. Returns whether the event could change a plan."""
        family, key = self._families.get(owner), Key(kind, child["metadata"]["name"])
        if family is None or label(child, UID_LABEL) != family.uid:
            return True
        before, now = family.digests.get(key), "deleted" if deleted else child_digest(kind, child)
        if now != before:  # an event that changes nothing relevant is not worth packing the object
            family.put(key, child, deleted)
            family.digests[key] = now
        return now != (before or EXPECTED)

    def add_new_resource(self, key: ResourceKey, uid: str) -> None:
        """Note that a resource was created while this process led: it has no children yet."""
        self._families[key] = _Family(uid, is_new=True)

    def may_be_stale(self, key: ResourceKey) -> bool:
        """Whether a resource's children come from events, which may be late."""
        family = self._families.get(key)
        return family is not None and not (family.is_new and not family.objects)

    def open(self, key: ResourceKey, uid: str) -> None:
        """Start to store the children of a resource. Must precede the lists and reads that are added."""
        family = self._families.get(key)
        if family is None or family.uid != uid:
            self._families[key] = _Family(uid)

    def add_listed(self, key: ResourceKey, kind: str, listed: Iterable[Raw]) -> list[Raw]:
        """Add a list that was read since `open`, or a supplement to it. Returns all children of the kind."""
        items, family = list(listed), self._families.get(key)
        if family is None or self.stream_version(kind, key.namespace) is None:
            return items
        for item in items:
            family.put(Key(kind, item["metadata"]["name"]), item)
        family.listed.add(kind)
        return family.living(kind)

    def add(self, key: ResourceKey, child: Key, found: Raw) -> None:
        """Add one child that was read since `open`."""
        family = self._families.get(key)
        if family and self.stream_version(child.kind, key.namespace) is not None:
            family.put(child, found)

    def of_kind(self, key: ResourceKey, kind: str) -> list[Raw] | None:
        """The children of a kind; None if they must be listed from the API server."""
        family = self._families.get(key)
        is_complete = family is not None and (kind in family.listed or family.is_new)
        return family.living(kind) if family and is_complete and self.stream_version(kind, key.namespace) else None

    def get(self, key: ResourceKey, child: Key) -> Raw | None:
        """One child; None if it is not cached, which does not prove that it is absent."""
        family = self._families.get(key)
        _, data = family.objects.get(child, (0, DELETED)) if family else (0, DELETED)
        return unpack(data) if data != DELETED else None

    def invalidate(self, key: ResourceKey) -> None:
        """Drop the children of a resource: the next plan lists them from the API server."""
        self._families.pop(key, None)
