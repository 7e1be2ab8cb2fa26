"""Carries out a plan's creates, applies and deletes, and returns the obstacles, so that the plan can be made again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tunesmith_operator.children import ChildCache
from tunesmith_operator.client import ApiError, Client, controller_uid
from tunesmith_operator.plan.names import is_leftover, uid_of
from tunesmith_operator.plan.types import Key, Observed, Plan, Raw
from tunesmith_operator.resources import key_of


@dataclass(frozen=True)
class Obstacles:
    """Children that could not be created or applied as planned."""

    foreign: frozenset[Key] = frozenset()
    """Names that objects of another controller have taken."""
    former: frozenset[Key] = frozenset()
    """Those of `foreign` whose controller was a deleted resource of the same kind and name."""
    refused: Mapping[Key, str] = field(default_factory=dict)
    """Children that the API server rejects, with its message."""

    def __bool__(self) -> bool:
        return bool(self.foreign or self.refused)

    def __or__(self, other: Obstacles) -> Obstacles:
        return Obstacles(self.foreign | other.foreign, self.former | other.former, {**self.refused, **other.refused})

    def add_to(self, observed: Observed) -> Observed:
        """`observed` with these obstacles."""
        return replace(
            observed,
            foreign=observed.foreign | self.foreign,
            former=observed.former | self.former,
            refused={**observed.refused, **self.refused},
        )


async def make_children(
    client: Client, cache: ChildCache, resource: Raw, plan: Plan, uids: Mapping[Key, str]
) -> Obstacles:
    """Create and apply the children of a plan, and add to `cache` those created.

    `uids` are those of the observed children. Failures that are no obstacles raise ApiError.
    """
    obstacles = Obstacles()
    for manifest in plan.create:
        obstacles |= await _create(client, cache, resource, manifest)
    for manifest in plan.apply:
        obstacles |= await _apply(client, manifest, uids.get(_key(manifest)))
    return obstacles


async def delete_children(client: Client, resource: Raw, plan: Plan, uids: Mapping[Key, str]) -> None:
    """Delete the plan's children by the uid that was observed: an object that has taken the name since stays."""
    namespace = resource["metadata"]["namespace"]
    for key in plan.delete:
        if key in uids:
            await client.delete(key.kind, namespace, key.name, uids[key])


async def _create(client: Client, cache: ChildCache, resource: Raw, manifest: Raw) -> Obstacles:
    key = _key(manifest)
    try:
        created = await client.create(manifest)
        # The watch stream of the kind may lag: without this record the next plan would create the child again.
        cache.add(key_of(resource), key, {**manifest, "metadata": created["metadata"]})
    except ApiError as error:
        if error.already_exists:
            return await _name_taken(client, resource, key)
        if error.refused:
            return Obstacles(refused={key: error.message})
        raise
    return Obstacles()


async def _name_taken(client: Client, resource: Raw, key: Key) -> Obstacles:
    """No obstacle if the object of that name is the child itself, or is gone by now."""
    found = await client.get(key.kind, resource["metadata"]["namespace"], key.name)
    if found is None or controller_uid(found) == uid_of(resource):
        return Obstacles()
    taken = frozenset({key})
    return Obstacles(taken, taken if is_leftover(found, resource) else frozenset())


async def _apply(client: Client, manifest: Raw, uid: str | None) -> Obstacles:
    try:
        await client.apply(manifest, uid)
    except ApiError as error:
        if error.refused:
            return Obstacles(refused={_key(manifest): error.message})
        raise
    return Obstacles()


def _key(manifest: Raw) -> Key:
    return Key(manifest["kind"], manifest["metadata"]["name"])
