"""Reads, live, all that a plan is made from. A failed read raises, so that a plan never sees half a picture."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from tunesmith_operator.client import Client, Raw, controller_uid
from tunesmith_operator.plan.names import UID_LABEL, uid_of
from tunesmith_operator.plan.types import Key, KindPlan, Observed, Progress

FIELDS = {"Job": "jobs", "Pod": "pods", "Deployment": "deployments", "Service": "services"}
"""Kind of a child -> where an Observed has it."""


async def observe(client: Client, kind: KindPlan, resource: Raw, progress: Mapping[str, Progress]) -> Observed:
    """The children of `resource`, what stands in their place, and the resources it names."""
    namespace, uid = resource["metadata"]["namespace"], uid_of(resource)
    keys, references = sorted(kind.gets(resource)), sorted(kind.references(resource))
    listed, named, referred = await asyncio.gather(
        asyncio.gather(*(client.list(child, namespace, labels={UID_LABEL: uid}) for child in kind.lists)),
        asyncio.gather(*(client.get(key.kind, namespace, key.name) for key in keys)),
        asyncio.gather(*(client.get(reference.kind, namespace, reference.name) for reference in references)),
    )
    children: dict[str, dict[str, Raw]] = {child: {} for child in FIELDS}
    for child, items in zip(kind.lists, listed, strict=True):
        children[child] = {item["metadata"]["name"]: item for item in items}
    foreign = set()
    for key, found in zip(keys, named, strict=True):
        children[key.kind].pop(key.name, None)
        if found is None:
            continue
        if controller_uid(found) == uid:
            children[key.kind][key.name] = found
        else:
            foreign.add(key)
    return Observed(
        jobs=_controlled_by({uid}, children["Job"].values()),
        pods=_pods(children["Pod"].values(), children["Job"].values()),
        deployments=_controlled_by({uid}, children["Deployment"].values()),
        services=_controlled_by({uid}, children["Service"].values()),
        references=dict(zip(references, referred, strict=True)),
        progress=progress,
        foreign=frozenset(foreign),
    )


async def observe_events(client: Client, kind: KindPlan, resource: Raw, observed: Observed, now: datetime) -> Observed:
    """The same with the Events of those children that have something to say by Events alone."""
    namespace = resource["metadata"]["namespace"]
    keys = sorted(kind.wants_events(resource, observed, now))
    answers = await asyncio.gather(
        *(
            client.list("Event", namespace, fields={"involvedObject.kind": key.kind, "involvedObject.name": key.name})
            for key in keys
        )
    )
    return replace(observed, events=tuple(event for events in answers for event in events))


def _controlled_by(uids: set[str], children: Iterable[Raw]) -> tuple[Raw, ...]:
    """Those whose controller is one of `uids`. The label alone proves nothing: anybody can write it."""
    return tuple(child for child in children if controller_uid(child) in uids)


def _pods(pods: Iterable[Raw], jobs: Iterable[Raw]) -> tuple[Raw, ...]:
    """The pods of our Jobs, and those of ReplicaSets, whose own owner is not looked up."""
    owners = {uid_of(job) for job in jobs}
    return tuple(
        pod
        for pod in pods
        if controller_uid(pod) in owners
        or any(
            owner["kind"] == "ReplicaSet" and owner.get("controller")
            for owner in pod["metadata"].get("ownerReferences") or ()
        )
    )


def child_uids(observed: Observed) -> Mapping[Key, str]:
    """The uid of every child that was seen."""
    return {
        Key(kind, child["metadata"]["name"]): uid_of(child)
        for kind, field in FIELDS.items()
        for child in getattr(observed, field)
    }
