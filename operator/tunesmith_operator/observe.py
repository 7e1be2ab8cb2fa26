"""Reads, live, all that a plan is made from. A failed read raises, so that a plan never sees half a picture."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from tunesmith_operator.children import Children
from tunesmith_operator.client import ApiError, Client, Raw, controller_uid
from tunesmith_operator.plan.names import UID_LABEL, is_left_over, uid_of
from tunesmith_operator.plan.pods.read import is_finished
from tunesmith_operator.plan.types import CHILDREN, Key, KindPlan, Observed, Progress
from tunesmith_operator.resources import key_of


async def observe(
    client: Client, known: Children, kind: KindPlan, resource: Raw, progress: Mapping[str, Progress]
) -> Observed:
    """The children of `resource`, what stands in their place, and the resources it names."""
    keys, references = sorted(kind.gets(resource)), sorted(kind.references(resource))
    namespace, uid = resource["metadata"]["namespace"], uid_of(resource)
    known.open(key_of(resource), uid)
    children, named, referred = await asyncio.gather(
        _list_children(client, known, kind, resource),
        asyncio.gather(*(_named(client, known, resource, key) for key in keys)),
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
    found_ones: dict[str, Any] = {field: tuple(children[child].values()) for child, field in CHILDREN.items()}
    return Observed(
        **found_ones,
        references=dict(zip(references, referred, strict=True)),
        progress=progress,
        foreign=frozenset(foreign),
        former=frozenset(former),
    )


async def _named(client: Client, known: Children, resource: Raw, child: Key) -> Raw | None:
    """What bears the name of a child: the child, as the streams have told, or else whatever there is."""
    key = key_of(resource)
    there = known.get(key, child)
    if there is None or controller_uid(there) != uid_of(resource):
        there = await client.get(child.kind, key.namespace, child.name)
        if there is not None:
            known.keep(key, child, there)
    return there


async def _list_children(client: Client, known: Children, kind: KindPlan, resource: Raw) -> dict[str, dict[str, Raw]]:
    """The children found by their label, by kind and name.

    They are as the streams have told, or from the watch cache. Two things make them good enough: what status says was
    made is looked for by name before it counts as gone; and pods are listed after the Jobs that count them, and listed anew
    where a Job has counted a pod, or the end of one, that was not told of: each kind has a stream of its own.
    """
    key, uid = key_of(resource), uid_of(resource)
    children: dict[str, dict[str, Raw]] = {child: {} for child in CHILDREN}
    for child in (each for each in kind.lists if each != "Pod"):
        listed = await _listed(client, known, child, resource)
        if missing := await _missing(client, child, resource, listed):
            listed += missing
            known.fill(key, child, missing)
        children[child] = {item["metadata"]["name"]: item for item in listed if controller_uid(item) == uid}
    if "Pod" in kind.lists:
        jobs = children["Job"].values()
        pods = _ours(await _listed(client, known, "Pod", resource), jobs)
        if any(_knows_more(job, pods) for job in jobs):
            pods = _ours(await client.list("Pod", key.namespace, labels={UID_LABEL: uid}), jobs)
            known.fill(key, "Pod", pods)
        children["Pod"] = {pod["metadata"]["name"]: pod for pod in pods}
    return children


async def _listed(client: Client, known: Children, child: str, resource: Raw) -> list[Raw]:
    """The objects of a kind that bear the label of `resource`."""
    key, labels = key_of(resource), {UID_LABEL: uid_of(resource)}
    there = known.of(key, child)
    if there is None:
        since = known.version(child, key.namespace)
        try:
            listed = await client.list(child, key.namespace, labels=labels, cached=True, since=since)
        except ApiError as error:
            if error.status != 504:  # another API server, whose cache has not come that far
                raise
            listed = await client.list(child, key.namespace, labels=labels)
        there = known.fill(key, child, listed)
    return there


async def _missing(client: Client, child: str, resource: Raw, listed: Iterable[Raw]) -> list[Raw]:
    """Children of a kind that status tells of and a list did not have, as far as they are there."""
    told = (resource.get("status") or {}).get("children") or ()
    names = {each["name"] for each in told if each["kind"] == child} - {item["metadata"]["name"] for item in listed}
    found = await asyncio.gather(
        *(client.get(child, resource["metadata"]["namespace"], name) for name in sorted(names))
    )
    return [item for item in found if item is not None]


def _knows_more(job: Raw, pods: Iterable[Raw]) -> bool:
    """Whether the Job controller has counted more pods of a Job than there are among `pods`, or more that have ended."""
    mine = [pod for pod in pods if controller_uid(pod) == uid_of(job)]
    status = job.get("status") or {}
    uncounted = status.get("uncountedTerminatedPods") or {}
    ended = sum((status.get(name) or 0) + len(uncounted.get(name) or ()) for name in ("succeeded", "failed"))
    return ended + (status.get("active") or 0) > len(mine) or ended > sum(map(is_finished, mine))


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
        for kind, field in CHILDREN.items()
        for child in getattr(observed, field)
    }
