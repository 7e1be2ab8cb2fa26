"""What the watch streams have told of our resources: whom an event concerns, and those that are under way themselves.

It can be lost at any time: the streams begin with every object there is. It may be late: good enough to say how things
stand, as a status is written to the version that it was planned from and to no other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tunesmith_operator.child_digest import fingerprint
from tunesmith_operator.codec import pack, unpack
from tunesmith_operator.plan.names import KIND_LABEL, NAME_LABEL, is_deleting, label
from tunesmith_operator.plan.phases import FINAL
from tunesmith_operator.plan.spec.reference_cycles import Node, find_ring, node
from tunesmith_operator.plan.types import Raw, Reference


class ResourceKey(NamedTuple):
    """One of our resources. It stays the same when the resource is deleted and made anew."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True)
class Known:
    """What is remembered of a resource."""

    version: str
    spec: tuple[str, int | None]
    """uid and generation: while they are the same, so is its spec."""
    settled: bool
    references: frozenset[Reference]
    node: Node
    told: str
    """Digest of what it tells those that refer to it."""
    text: bytes
    """The resource, where it is not settled; empty where it must be read."""


class Resources:
    """The resources there are, and who refers to whom."""

    def __init__(self, references: Callable[[Raw], frozenset[Reference]]) -> None:
        self._references = references
        self._known: dict[ResourceKey, Known] = {}
        self._referrers: defaultdict[ResourceKey, set[ResourceKey]] = defaultdict(set)

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[ResourceKey]:
        return iter(tuple(self._known))

    def __contains__(self, key: ResourceKey) -> bool:
        return key in self._known

    def is_unsettled(self, key: ResourceKey) -> bool:
        """Whether there is such a resource and a look at it could be of use."""
        known = self._known.get(key)
        return known is not None and not known.settled

    def version(self, key: ResourceKey) -> str | None:
        """The newest resourceVersion heard of."""
        known = self._known.get(key)
        return known.version if known else None

    def get(self, key: ResourceKey, version: int) -> Raw | None:
        """A resource as it was told of, if that is not older than `version`."""
        known = self._known.get(key)
        return unpack(known.text) if known and known.text and int(known.version) >= version else None

    def update(self, resource: Raw) -> frozenset[ResourceKey]:
        """Take note of a resource as it is now. Returns those to look at because it changed; not itself."""
        key = key_of(resource)
        before = self._known.get(key)
        metadata, settled = resource["metadata"], is_settled(resource)
        spec = (metadata["uid"], metadata.get("generation"))
        references = before.references if before and before.spec == spec else self._references(resource)
        now = Known(
            version=metadata["resourceVersion"],
            spec=spec,
            settled=settled,
            references=references,
            node=node(resource, references),
            told=_told(resource),
            text=b"" if settled else pack(resource),
        )
        self._known[key] = now
        if before is None or before.references != now.references:
            self._refer(key, before.references if before else frozenset(), now.references)
        has_changed = before is None or (before.told, before.references) != (now.told, now.references)
        return self._waiting_for(key) if has_changed else frozenset()

    def ring(self, resource: Raw, live: Mapping[Reference, Raw | None]) -> tuple[Reference, ...]:
        """The references that lead from `resource` back to it. `live`: the resources it names, as they are now."""
        key = key_of(resource)
        read = {ref: node(thing, self._references(thing)) if thing else None for ref, thing in live.items()}

        def known(reference: Reference) -> Node | None:
            cached = self._known.get(ResourceKey(reference.kind, key.namespace, reference.name))
            return read.get(reference, cached.node if cached else None)

        return find_ring(Reference(key.kind, key.name), node(resource, frozenset(live)), known)

    def remove(self, key: ResourceKey) -> frozenset[ResourceKey]:
        """Take note that a resource is gone. Returns those to look at for that reason."""
        known = self._known.pop(key, None)
        if known is None:
            return frozenset()
        self._refer(key, known.references, frozenset())
        return self._waiting_for(key)

    def _refer(self, key: ResourceKey, before: frozenset[Reference], now: frozenset[Reference]) -> None:
        for gone in before - now:
            target = ResourceKey(gone.kind, key.namespace, gone.name)
            self._referrers[target].discard(key)
            if not self._referrers[target]:
                del self._referrers[target]
        for new in now - before:
            self._referrers[ResourceKey(new.kind, key.namespace, new.name)].add(key)

    def _waiting_for(self, key: ResourceKey) -> frozenset[ResourceKey]:
        return frozenset(referrer for referrer in self._referrers.get(key, ()) if self.is_unsettled(referrer))


def key_of(resource: Raw) -> ResourceKey:
    """The key of one of our resources."""
    metadata = resource["metadata"]
    return ResourceKey(resource["kind"], metadata["namespace"], metadata["name"])


def owner_of(child: Raw) -> ResourceKey | None:
    """The key of the resource that a child says it belongs to. A hint only: labels can be written by anybody."""
    kind, name = label(child, KIND_LABEL), label(child, NAME_LABEL)
    return ResourceKey(kind, child["metadata"]["namespace"], name) if kind and name else None


def is_settled(resource: Raw) -> bool:
    """Whether all has been done for a resource for ever, so that only a change of its spec asks for another look.

    Then it is not read live, not even at a restart. A time to live is still to be watched over; a failure without an
    end (a spec that this version or configuration refuses) may be judged otherwise by the next.
    """
    status, spec = resource.get("status") or {}, resource.get("spec") or {}
    return (
        status.get("phase") in FINAL
        and status.get("completionTime") is not None
        and status.get("observedGeneration") == resource["metadata"].get("generation")
        and (spec.get("ttlAfterFinished") is None or not status.get("children"))
        and not any(one["type"] == "Reconciling" and one["status"] == "True" for one in status.get("conditions") or ())
        and not is_deleting(resource)
    )


def _told(resource: Raw) -> str:
    """Digest of what others go by: everything in the status but how far it is."""
    status = {name: value for name, value in (resource.get("status") or {}).items() if name != "progress"}
    return fingerprint([resource["metadata"]["uid"], resource["metadata"].get("deletionTimestamp"), status])
