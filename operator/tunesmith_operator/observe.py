"""Reads the state that a plan is made from: children, from the cache or live; references and Events, always live.

A read that fails raises ApiError, so that no plan rests on half a picture.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from tunesmith_operator.children import ChildCache
from tunesmith_operator.client import ApiError, Client, controller_uid
from tunesmith_operator.plan.names import UID_LABEL, is_leftover, uid_of
from tunesmith_operator.plan.pods.read import is_finished
from tunesmith_operator.plan.types import CHILDREN, Key, KindPlan, Observed, Progress, Raw
from tunesmith_operator.resources import key_of

Children = dict[str, dict[str, Raw]]
"""By kind and name."""


async def observe(
    client: Client, cache: ChildCache, kind: KindPlan, resource: Raw, progress: Mapping[str, Progress]
) -> Observed:
    """The children of `resource`, the objects that have taken their names, and the resources that it names."""
    keys, references = sorted(kind.gets(resource)), sorted(kind.references(resource))
    namespace, uid = resource["metadata"]["namespace"], uid_of(resource)
    cache.open(key_of(resource), uid)
    children, named, referred = await asyncio.gather(
        _list_children(client, cache, kind, resource),
        asyncio.gather(*(_get_child(client, cache, resource, key) for key in keys)),
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
            former |= {key} if is_leftover(found, resource) else set()
    fields: dict[str, Any] = {field: tuple(children[child].values()) for child, field in CHILDREN.items()}
    return Observed(
        **fields,
        references=dict(zip(references, referred, strict=True)),
        progress=progress,
        foreign=frozenset(foreign),
        former=frozenset(former),
    )


async def _get_child(client: Client, cache: ChildCache, resource: Raw, child: Key) -> Raw | None:
    """The object with the name of a child: the cached child, or else whatever the API server has by that name."""
    key = key_of(resource)
    found = cache.get(key, child)
    if found is None or controller_uid(found) != uid_of(resource):
        found = await client.get(child.kind, key.namespace, child.name)
        if found is not None:
            cache.add(key, child, found)
    return found


async def _list_children(client: Client, cache: ChildCache, kind: KindPlan, resource: Raw) -> Children:
    """The children with the label of `resource`.

    Cache and lists may be stale, so absence proves nothing: a child that the status names is read by name, and pods are
    listed from etcd if a Job has counted more of them. Jobs precede pods, because their counts must be the older ones.
    """
    uid = uid_of(resource)
    children: Children = {child: {} for child in CHILDREN}
    for child in (each for each in kind.lists if each != "Pod"):
        listed = await _list_kind(client, cache, child, resource)
        if missing := await _get_missing(client, child, resource, listed):
            listed += missing
            cache.add_listed(key_of(resource), child, missing)
        children[child] = {item["metadata"]["name"]: item for item in listed if controller_uid(item) == uid}
    if "Pod" in kind.lists:
        children["Pod"] = await _list_pods(client, cache, resource, children["Job"].values())
    return children


async def _list_pods(client: Client, cache: ChildCache, resource: Raw, jobs: Collection[Raw]) -> dict[str, Raw]:
    pods = _select_pods(await _list_kind(client, cache, "Pod", resource), jobs)
    if any(_has_counted_more(job, pods) for job in jobs):
        key = key_of(resource)
        pods = _select_pods(await client.list("Pod", key.namespace, labels={UID_LABEL: uid_of(resource)}), jobs)
        cache.add_listed(key, "Pod", pods)
    return {pod["metadata"]["name"]: pod for pod in pods}


async def _list_kind(client: Client, cache: ChildCache, child: str, resource: Raw) -> list[Raw]:
    """The objects of a kind with the label of `resource`."""
    key, labels = key_of(resource), {UID_LABEL: uid_of(resource)}
    cached = cache.of_kind(key, child)
    if cached is not None:
        return cached
    since = cache.stream_version(child, key.namespace)
    try:
        listed = await client.list(child, key.namespace, labels=labels, cached=True, since=since)
    except ApiError as error:
        if error.status != 504:  # the watch cache of another API server that is behind `since`
            raise
        listed = await client.list(child, key.namespace, labels=labels)
    return cache.add_listed(key, child, listed)


async def _get_missing(client: Client, child: str, resource: Raw, listed: Iterable[Raw]) -> list[Raw]:
    """The children of a kind that the status names, that a list lacks, and that exist."""
    in_status = (resource.get("status") or {}).get("children") or ()
    names = {each["name"] for each in in_status if each["kind"] == child} - {
        item["metadata"]["name"] for item in listed
    }
    found = await asyncio.gather(
        *(client.get(child, resource["metadata"]["namespace"], name) for name in sorted(names))
    )
    return [item for item in found if item is not None]


def _has_counted_more(job: Raw, pods: Iterable[Raw]) -> bool:
    """Whether the Job controller has counted more pods of a Job, or more finished ones, than `pods` has."""
    mine = [pod for pod in pods if controller_uid(pod) == uid_of(job)]
    status = job.get("status") or {}
    uncounted = status.get("uncountedTerminatedPods") or {}
    ended = sum((status.get(name) or 0) + len(uncounted.get(name) or ()) for name in ("succeeded", "failed"))
    return ended + (status.get("active") or 0) > len(mine) or ended > sum(map(is_finished, mine))


async def observe_events(client: Client, kind: KindPlan, resource: Raw, observed: Observed, now: datetime) -> Observed:
    """`observed` with the Events about the children that `KindPlan.wants_events` names."""
    namespace = resource["metadata"]["namespace"]
    keys = sorted(kind.wants_events(resource, observed, now))
    lists = await asyncio.gather(
        *(
            client.list("Event", namespace, fields={"involvedObject.kind": key.kind, "involvedObject.name": key.name})
            for key in keys
        )
    )
    return replace(observed, events=tuple(event for events in lists for event in events))


def _select_pods(pods: Iterable[Raw], jobs: Iterable[Raw]) -> list[Raw]:
    """The pods of these Jobs, of Jobs that are gone (they may still be at work), and of ReplicaSets.

    The label proves nothing, as anybody can set it; the controller of a pod does.
    """
    uids = {job["metadata"]["name"]: uid_of(job) for job in jobs}
    return [
        pod
        for pod in pods
        if any(
            owner.get("controller") and _is_ours(owner, uids) for owner in pod["metadata"].get("ownerReferences") or ()
        )
    ]


def _is_ours(owner: Raw, job_uids: Mapping[str, str]) -> bool:
    return owner["kind"] == "ReplicaSet" or (
        owner["kind"] == "Job" and job_uids.get(owner["name"], owner["uid"]) == owner["uid"]
    )


def child_uids(observed: Observed) -> Mapping[Key, str]:
    """The uid of every observed child."""
    return {
        Key(kind, child["metadata"]["name"]): uid_of(child)
        for kind, field in CHILDREN.items()
        for child in getattr(observed, field)
    }
