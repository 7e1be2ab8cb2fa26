"""Objects in memory behind the operator's Client protocol, as far as the tests of single modules need them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from tunesmith_operator.client import ApiError
from tunesmith_operator.plan.types import Raw

Place = tuple[str, str, str]


class MemoryClient:
    """Names, uids and resourceVersions as an API server keeps them; no schemas, no fields, no controllers.

    `refuse` maps (verb, kind) to the ApiError that the next such calls raise.
    """

    def __init__(self, *things: Raw) -> None:
        self.things: dict[Place, Raw] = {}
        self.calls: list[tuple[str, str, str]] = []
        self.refuse: dict[tuple[str, str], ApiError] = {}
        self._version = 0
        for thing in things:
            self.put(thing)

    def put(self, thing: Raw) -> Raw:
        """Have `thing` there, as if somebody else had written it."""
        self._version += 1
        stored = copy.deepcopy(thing)
        stored["metadata"]["resourceVersion"] = str(self._version)
        stored["metadata"].setdefault("uid", f"uid-{self._version}")
        self.things[_place(stored)] = stored
        return copy.deepcopy(stored)

    def writes(self) -> list[tuple[str, str, str]]:
        """(verb, kind, name) of every write, in order."""
        return [call for call in self.calls if call[0] not in ("get", "list")]

    async def get(self, kind: str, namespace: str, name: str) -> Raw | None:
        self._called("get", kind, name)
        return copy.deepcopy(self.things.get((kind, namespace, name)))

    async def list(
        self,
        kind: str,
        namespace: str | None,
        labels: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
        limit: int | None = None,
        cached: bool = False,
        since: str | None = None,
    ) -> list[Raw]:
        self._called("list", kind, "")
        found = [
            copy.deepcopy(thing)
            for (a_kind, a_namespace, _), thing in self.things.items()
            if a_kind == kind
            and namespace in (None, a_namespace)
            and (labels or {}).items() <= (thing["metadata"].get("labels") or {}).items()
        ]
        return found[:limit]

    async def create(self, manifest: Raw) -> Raw:
        self._called("create", manifest["kind"], manifest["metadata"]["name"])
        if _place(manifest) in self.things:
            raise ApiError("POST", 409, "AlreadyExists", "there is one")
        return self.put(manifest)

    async def replace(self, manifest: Raw) -> Raw:
        self._called("replace", manifest["kind"], manifest["metadata"]["name"])
        there = self.things.get(_place(manifest))
        if there is None or there["metadata"]["resourceVersion"] != manifest["metadata"]["resourceVersion"]:
            raise ApiError("PUT", 409, "Conflict", "it has changed")
        return self.put(manifest)

    async def apply(self, manifest: Raw, uid: str | None) -> Raw:
        self._called("apply", manifest["kind"], manifest["metadata"]["name"])
        there = self.things.get(_place(manifest))
        if (there["metadata"]["uid"] if there else None) != uid:
            raise ApiError("PATCH", 409, "Conflict", "it is another")
        return self.put({**manifest, "metadata": {**manifest["metadata"], **({"uid": uid} if uid else {})}})

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        self._called("delete", kind, name)
        there = self.things.get((kind, namespace, name))
        if there is not None and there["metadata"]["uid"] == uid:
            del self.things[(kind, namespace, name)]

    async def write_status(self, resource: Raw, status: Raw) -> Raw:
        self._called("status", resource["kind"], resource["metadata"]["name"])
        there = self.things.get(_place(resource))
        if there is None:
            raise ApiError("PATCH", 404, "NotFound", "it is gone")
        if there["metadata"]["resourceVersion"] != resource["metadata"]["resourceVersion"]:
            raise ApiError("PATCH", 409, "Conflict", "it has changed")
        return self.put({**there, "status": status})

    def _called(self, verb: str, kind: str, name: str) -> None:
        self.calls.append((verb, kind, name))
        if (verb, kind) in self.refuse:
            raise self.refuse[(verb, kind)]


def _place(thing: Raw) -> Place:
    metadata: dict[str, Any] = thing["metadata"]
    return thing["kind"], metadata["namespace"], metadata["name"]
