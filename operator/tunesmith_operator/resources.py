"""Cache of our resources: which ones refer to which, and the unsettled ones themselves.

It is filled by the first list and kept current by watch events, so it may be stale. That is good enough for a status, which
is written only to the resourceVersion that it was planned from (see controller.py).
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
from tunesmith_operator.plan.spec.reference_cycles import Node, find_cycle, node
from tunesmith_operator.plan.types import Raw, Reference


class ResourceKey(NamedTuple):
    """One of our resources, by name: a resource that is deleted and created again has the same key."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True)
class CachedResource:
    """The cached state of one resource."""

    version: str
    spec: tuple[str, int | None]
    """uid and generation, which identify the spec."""
    settled: bool
    references: frozenset[Reference]
    node: Node
    shared_digest: str
    """Digest of the state that referrers depend on."""
    packed: bytes
    """The resource; empty if it is settled."""


class Resources:
    """The known resources and their references."""

    def __init__(self, references: Callable[[Raw], frozenset[Reference]]) -> None:
        self._references = references
        self._cached: dict[ResourceKey, CachedResource] = {}
        self._referrers: defaultdict[ResourceKey, set[ResourceKey]] = defaultdict(set)

    def __len__(self) -> int:
        return len(self._cached)

    def __iter__(self) -> Iterator[ResourceKey]:
        return iter(tuple(self._cached))

    def __contains__(self, key: ResourceKey) -> bool:
        return key in self._cached

    def is_unsettled(self, key: ResourceKey) -> bool:
        """Whether the resource exists and may need a reconcile."""
        cached = self._cached.get(key)
        return cached is not None and not cached.settled

    def version(self, key: ResourceKey) -> str | None:
        """The newest resourceVersion received."""
        cached = self._cached.get(key)
        return cached.version if cached else None

    def get(self, key: ResourceKey, version: int) -> Raw | None:
        """The cached resource; None if it is older than `version` or settled."""
        cached = self._cached.get(key)
        return unpack(cached.packed) if cached and cached.packed and int(cached.version) >= version else None

    def update(self, resource: Raw) -> frozenset[ResourceKey]:
        """Store a resource. Returns the referrers that must be reconciled because of the change."""
        key = key_of(resource)
        before = self._cached.get(key)
        metadata, settled = resource["metadata"], is_settled(resource)
        spec = (metadata["uid"], metadata.get("generation"))
        references = before.references if before and before.spec == spec else self._references(resource)
        now = CachedResource(
            version=metadata["resourceVersion"],
            spec=spec,
            settled=settled,
            references=references,
            node=node(resource, references),
            shared_digest=_shared_digest(resource),
            packed=b"" if settled else pack(resource),
        )
        self._cached[key] = now
        if before is None or before.references != now.references:
            self._update_referrers(key, before.references if before else frozenset(), now.references)
        has_changed = before is None or (before.shared_digest, before.references) != (now.shared_digest, now.references)
        return self._unsettled_referrers(key) if has_changed else frozenset()

    def cycle(self, resource: Raw, live: Mapping[Reference, Raw | None]) -> tuple[Reference, ...]:
        """The cycle of references through `resource`, if any. `live`: the resources that it names, just read."""
        key = key_of(resource)
        read = {ref: node(thing, self._references(thing)) if thing else None for ref, thing in live.items()}

        def known(reference: Reference) -> Node | None:
            cached = self._cached.get(ResourceKey(reference.kind, key.namespace, reference.name))
            return read.get(reference, cached.node if cached else None)

        return find_cycle(Reference(key.kind, key.name), node(resource, frozenset(live)), known)

    def remove(self, key: ResourceKey) -> frozenset[ResourceKey]:
        """Remove a resource. Returns the referrers that must be reconciled because of that."""
        removed = self._cached.pop(key, None)
        if removed is None:
            return frozenset()
        self._update_referrers(key, removed.references, frozenset())
        return self._unsettled_referrers(key)

    def _update_referrers(self, key: ResourceKey, before: frozenset[Reference], now: frozenset[Reference]) -> None:
        for gone in before - now:
            target = ResourceKey(gone.kind, key.namespace, gone.name)
            self._referrers[target].discard(key)
            if not self._referrers[target]:
                del self._referrers[target]
        for new in now - before:
            self._referrers[ResourceKey(new.kind, key.namespace, new.name)].add(key)

    def _unsettled_referrers(self, key: ResourceKey) -> frozenset[ResourceKey]:
        return frozenset(referrer for referrer in self._referrers.get(key, ()) if self.is_unsettled(referrer))


def key_of(resource: Raw) -> ResourceKey:
    """The key of one of our resources."""
    metadata = resource["metadata"]
    return ResourceKey(resource["kind"], metadata["namespace"], metadata["name"])


def owner_of(child: Raw) -> ResourceKey | None:
    """The resource that a child's labels name. Only a hint, as anybody can set labels."""
    kind, name = label(child, KIND_LABEL), label(child, NAME_LABEL)
    return ResourceKey(kind, child["metadata"]["namespace"], name) if kind and name else None


def is_settled(resource: Raw) -> bool:
    """Whether only a change of its spec can require another reconcile of a resource.

    A settled resource is never read live, not even at a restart. A resource with a time to live to enforce is not settled,
    nor is a refused spec, which another version or configuration may accept.
    """
    status, spec = resource.get("status") or {}, resource.get("spec") or {}
    return (
        status.get("phase") in FINAL
        and status.get("completionTime") is not None
        and status.get("observedGeneration") == resource["metadata"].get("generation")
        and (spec.get("ttlAfterFinished") is None or not status.get("children"))
        and not any(
            each["type"] == "Reconciling" and each["status"] == "True" for each in status.get("conditions") or ()
        )
        and not is_deleting(resource)
    )


def _shared_digest(resource: Raw) -> str:
    """Digest of the state that referrers depend on: identity, deletion and the status without progress."""
    status = {name: value for name, value in (resource.get("status") or {}).items() if name != "progress"}
    return fingerprint([resource["metadata"]["uid"], resource["metadata"].get("deletionTimestamp"), status])
