"""The children of the resources under way, as the streams tell of them: what has been listed once need not be again.

A resource's children are kept from a list that is not older than where the streams were when it was asked for; from then
on the streams keep them current. A gap in a stream, an error, and the end of the resource make them forgotten. They are
good enough to say how things stand; before anything is made or deleted, children are listed anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tunesmith_operator.child_digest import said
from tunesmith_operator.client import Raw
from tunesmith_operator.codec import pack, unpack
from tunesmith_operator.plan.names import UID_LABEL, label
from tunesmith_operator.plan.types import Key
from tunesmith_operator.resources import ResourceKey

GONE = b""


@dataclass
class _Family:
    uid: str
    """Of the resource: one of the same name may take its place."""
    things: dict[Key, tuple[int, bytes]] = field(default_factory=dict)
    """Version and text; GONE for what was deleted."""
    listed: set[str] = field(default_factory=set)
    """Kinds that are complete."""
    said: dict[Key, str] = field(default_factory=dict)
    """Digest of what was heard last of a child."""
    newborn: bool = False
    """Whether the resource came to be while we led and listened: what children it has, we have made since."""

    def put(self, key: Key, child: Raw, gone: bool = False) -> None:
        """Take note of `child` unless something newer is known of it."""
        version = int(child["metadata"]["resourceVersion"])
        if self.things.get(key, (-1, GONE))[0] < version:
            self.things[key] = version, GONE if gone else pack(child)


class Children:
    """By resource. A kind that no stream tells of is never known."""

    def __init__(self) -> None:
        self._families: dict[ResourceKey, _Family] = {}
        self._versions: dict[tuple[str, str | None], str] = {}

    def __len__(self) -> int:
        return len(self._families)

    def begin(self, kind: str, namespace: str | None, version: str | None) -> None:
        """A stream will tell of all that happens after `version`; None: of nothing until it begins again."""
        self._families.clear()
        self._versions.pop((kind, namespace), None)
        if version is not None:
            self._versions[(kind, namespace)] = version

    def bear(self, key: ResourceKey, uid: str) -> None:
        """A resource has just been made, while this process led: it has no children yet."""
        self._families[key] = _Family(uid, newborn=True)

    def may_be_late(self, key: ResourceKey) -> bool:
        """Whether what is known of a resource's children is only what streams told of them."""
        family = self._families.get(key)
        return family is not None and not (family.newborn and not family.things)

    def hear(self, owner: ResourceKey, kind: str, child: Raw, gone: bool) -> bool:
        """A stream has told of a child of `owner`, by its labels. Whether a plan could go by it."""
        family, key = self._families.get(owner), Key(kind, child["metadata"]["name"])
        if family is None or label(child, UID_LABEL) != family.uid:
            return True
        before, now = family.said.get(key), "gone" if gone else said(kind, child)
        if now != before:  # else what is kept says the same
            family.put(key, child, gone)
            family.said[key] = now
        return now != (before or "")

    def version(self, kind: str, namespace: str) -> str | None:
        """Where the stream of a kind was at its last beginning: lists must not be older. None: no stream tells of it."""
        return self._versions.get((kind, namespace)) or self._versions.get((kind, None))

    def open(self, key: ResourceKey, uid: str) -> None:
        """From now on keep what the streams tell of the children of a resource; to be called before they are listed."""
        family = self._families.get(key)
        if family is None or family.uid != uid:
            self._families[key] = _Family(uid)

    def fill(self, key: ResourceKey, kind: str, listed: Iterable[Raw]) -> list[Raw]:
        """Add what has been listed since `open`, or found besides. Returns what is known now, all told."""
        items, family = list(listed), self._families.get(key)
        if family is None or self.version(kind, key.namespace) is None:
            return items
        for item in items:
            family.put(Key(kind, item["metadata"]["name"]), item)
        family.listed.add(kind)
        return _living(family, kind)

    def of(self, key: ResourceKey, kind: str) -> list[Raw] | None:
        """The children of a kind; None where they have to be listed."""
        family = self._families.get(key)
        complete = family is not None and (kind in family.listed or family.newborn)
        return _living(family, kind) if family and complete and self.version(kind, key.namespace) else None

    def get(self, key: ResourceKey, child: Key) -> Raw | None:
        """One child; None where it is not known, which is no proof that there is none."""
        family = self._families.get(key)
        _, text = family.things.get(child, (0, GONE)) if family else (0, GONE)
        return unpack(text) if text != GONE else None

    def keep(self, key: ResourceKey, child: Key, thing: Raw) -> None:
        """Add one child that has been read live since `open`."""
        family = self._families.get(key)
        if family and self.version(child.kind, key.namespace) is not None:
            family.put(child, thing)

    def forget(self, key: ResourceKey) -> None:
        """List the children of a resource when they are asked for again."""
        self._families.pop(key, None)


def _living(family: _Family, kind: str) -> list[Raw]:
    return [unpack(text) for key, (_, text) in family.things.items() if key.kind == kind and text != GONE]
