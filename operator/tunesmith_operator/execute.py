"""Does what a plan says, and reports what stood in its way so that it can be planned anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tunesmith_operator.children import Children
from tunesmith_operator.client import ApiError, Client, Raw, controller_uid
from tunesmith_operator.plan.names import is_left_over, uid_of
from tunesmith_operator.plan.types import Key, Observed, Plan
from tunesmith_operator.resources import key_of


@dataclass(frozen=True)
class Obstacles:
    """Children that could not be made as planned."""

    foreign: frozenset[Key] = frozenset()
    former: frozenset[Key] = frozenset()
    """Those of `foreign` that a former resource of the same kind and name has left."""
    refused: Mapping[Key, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.foreign or self.refused)

    def __or__(self, other: Obstacles) -> Obstacles:
        return Obstacles(self.foreign | other.foreign, self.former | other.former, {**self.refused, **other.refused})

    def seen(self, observed: Observed) -> Observed:
        """What was observed, and what was learnt since."""
        return replace(
            observed,
            foreign=observed.foreign | self.foreign,
            former=observed.former | self.former,
            refused={**observed.refused, **self.refused},
        )


async def make_children(
    client: Client, known: Children, resource: Raw, plan: Plan, uids: Mapping[Key, str]
) -> Obstacles:
    """Create and apply the children of a plan, and record in `known` those created.

    `uids` are the children observed to be ours. Failures other than obstacles raise.
    """
    obstacles = Obstacles()
    for manifest in plan.create:
        obstacles |= await _create(client, known, resource, manifest)
    for manifest in plan.apply:
        obstacles |= await _apply(client, manifest, uids.get(_key(manifest)))
    return obstacles


async def delete_children(client: Client, resource: Raw, plan: Plan, uids: Mapping[Key, str]) -> None:
    """Delete what the plan names, but only the very objects that were seen to be ours."""
    namespace = resource["metadata"]["namespace"]
    for key in plan.delete:
        if key in uids:
            await client.delete(key.kind, namespace, key.name, uids[key])


async def _create(client: Client, known: Children, resource: Raw, manifest: Raw) -> Obstacles:
    key = _key(manifest)
    try:
        created = await client.create(manifest)
        # The watch stream of the kind may lag: without this record the next plan would create the child again.
        known.keep(key_of(resource), key, {**manifest, "metadata": created["metadata"]})
    except ApiError as error:
        if error.already_exists:
            found = await client.get(key.kind, manifest["metadata"]["namespace"], key.name)
            if found is None or controller_uid(found) == uid_of(resource):
                return Obstacles()
            theirs = frozenset({key})
            return Obstacles(theirs, theirs if is_left_over(found, resource) else frozenset())
        if error.refused:
            return Obstacles(refused={key: error.message})
        raise
    return Obstacles()


async def _apply(client: Client, manifest: Raw, uid: str | None) -> Obstacles:
    key = _key(manifest)
    try:
        await client.apply(manifest, uid)
    except ApiError as error:
        if error.refused:
            return Obstacles(refused={key: error.message})
        raise
    return Obstacles()


def _key(manifest: Raw) -> Key:
    return Key(manifest["kind"], manifest["metadata"]["name"])
