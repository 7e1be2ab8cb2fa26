"""Reads, live, all that a plan is made from. A failed read raises, so that a plan never sees half a picture."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from tunesmith_operator.client import Client, Raw, controller_uid
from tunesmith_operator.plan.names import UID_LABEL, is_left_over, uid_of
from tunesmith_operator.plan.types import Key, KindPlan, Observed, Progress

FIELDS = {"Job": "jobs", "Pod": "pods", "Deployment": "deployments", "Service": "services"}
"""Kind of a child -> where an Observed has it."""


async def observe(client: Client, kind: KindPlan, resource: Raw, progress: Mapping[str, Progress]) -> Observed:
    """The children of `resource`, what stands in their place, and the resources it names."""
    keys, references = sorted(kind.gets(resource)), sorted(kind.references(resource))
    namespace, uid = resource["metadata"]["namespace"], uid_of(resource)
    children, named, referred = await asyncio.gather(
        _list_children(client, kind, resource),
        asyncio.gather(*(client.get(key.kind, namespace, key.name) for key in keys)),
        asyncio.gather(*(client.get(reference.kind, namespace, reference.name) for reference in references)),
    )
    foreign, former = set(), set()
    for key, found in zip(keys, named, strict=True):
        children[key.kind].pop(key.name, None)
        if found is None:
            continue
        if controller_uid(found) == uid:
            children[key.kind][key.name] = found
        else:
            foreign.add(key)
            former |= {key} if is_left_over(found, resource) else set()
    return Observed(
        jobs=tuple(children["Job"].values()),
        pods=tuple(children["Pod"].values()),
        deployments=tuple(children["Deployment"].values()),
        services=tuple(children["Service"].values()),
        references=dict(zip(references, referred, strict=True)),
        progress=progress,
        foreign=frozenset(foreign),
        former=frozenset(former),
    )


async def _list_children(client: Client, kind: KindPlan, resource: Raw) -> dict[str, dict[str, Raw]]:
    """The children found by their label, by kind and name.

    Lists come from the watch cache. Two things make them good enough to decide upon: what status says was made is
    looked for by name before it counts as gone; and pods are listed after the Jobs that count them.
    """
    namespace, labels = resource["metadata"]["namespace"], {UID_LABEL: uid_of(resource)}
    children: dict[str, dict[str, Raw]] = {child: {} for child in FIELDS}
    for child in (each for each in kind.lists if each != "Pod"):
        listed = await client.list(child, namespace, labels=labels, cached=True)
        there = {item["metadata"]["name"]: item for item in listed} | await _missing(client, child, resource, listed)
        children[child] = {name: item for name, item in there.items() if controller_uid(item) == uid_of(resource)}
    if "Pod" in kind.lists:
        jobs = children["Job"].values()
        pods = _ours(await client.list("Pod", namespace, labels=labels, cached=True), jobs)
        if any(_counted(job) > sum(controller_uid(pod) == uid_of(job) for pod in pods) for job in jobs):
            pods = _ours(await client.list("Pod", namespace, labels=labels), jobs)
        children["Pod"] = {pod["metadata"]["name"]: pod for pod in pods}
    return children


async def _missing(client: Client, child: str, resource: Raw, listed: Iterable[Raw]) -> dict[str, Raw]:
    """Children of a kind that status tells of and a list did not have, as far as they are there."""
    told = (resource.get("status") or {}).get("children") or ()
    names = {each["name"] for each in told if each["kind"] == child} - {item["metadata"]["name"] for item in listed}
    found = await asyncio.gather(
        *(client.get(child, resource["metadata"]["namespace"], name) for name in sorted(names))
    )
    return {item["metadata"]["name"]: item for item in found if item is not None}


def _counted(job: Raw) -> int:
    """How many pods the Job controller has counted."""
    status = job.get("status") or {}
    return sum(status.get(name) or 0 for name in ("active", "succeeded", "failed"))


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


def _ours(pods: Iterable[Raw], jobs: Iterable[Raw]) -> list[Raw]:
    """The pods of these Jobs, of Jobs that are gone (they may still be at work), and of ReplicaSets.

    A pod of somebody else that bears our label is told by its controller, which the label proves nothing of.
    """
    uids = {job["metadata"]["name"]: uid_of(job) for job in jobs}
    return [pod for pod in pods if any(_may_be_ours(owner, uids) for owner in _owners(pod) if owner.get("controller"))]


def _may_be_ours(owner: Raw, uids: Mapping[str, str]) -> bool:
    return owner["kind"] == "ReplicaSet" or (
        owner["kind"] == "Job" and uids.get(owner["name"], owner["uid"]) == owner["uid"]
    )


def _owners(pod: Raw) -> Iterable[Raw]:
    return pod["metadata"].get("ownerReferences") or ()


def child_uids(observed: Observed) -> Mapping[Key, str]:
    """The uid of every child that was seen."""
    return {
        Key(kind, child["metadata"]["name"]): uid_of(child)
        for kind, field in FIELDS.items()
        for child in getattr(observed, field)
    }
