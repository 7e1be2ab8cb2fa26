"""Rings of references: resources that wait for each other, and would for ever.

A reference is a reason to wait until the named resource has what is needed of it: an EvalJob that scores what a service
serves already does not wait, even where its verdict decides what the service serves next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from tunesmith_operator.plan.phases import Phase, is_final
from tunesmith_operator.plan.types import Raw, Reference

MAY_WAIT = frozenset({None, Phase.WAITING, Phase.FAILED, Phase.SUSPENDED})
"""Phases in which a resource needs what it names before it gets on. Failed: but not for good."""

OPEN_RING = "let one of them name something else (a job's spec is fixed: delete it and create it again)"
"""The hint for every member of a ring: the others then go on by themselves."""


class Node(NamedTuple):
    """A resource, as far as rings are concerned."""

    needs: frozenset[Reference]
    """What it may wait for."""
    gives: bool
    """Whether it has what others wait for, or never will."""


def node(resource: Raw, references: frozenset[Reference]) -> Node:
    """The node of a resource that names `references`."""
    status = resource.get("status") or {}
    serves = resource["kind"] == "InferenceService" and bool((status.get("model") or {}).get("uri"))
    gives = serves or is_final(resource)
    return Node(references if not gives and status.get("phase") in MAY_WAIT else frozenset(), gives)


def find_ring(start: Reference, first: Node, known: Callable[[Reference], Node | None]) -> tuple[Reference, ...]:
    """The shortest ring through `start`, its first and its last member; empty where there is none."""
    came_from: dict[Reference, Reference] = {}
    queue = deque([(start, first)])
    while queue:
        here, at = queue.popleft()
        for target in sorted(at.needs):
            there = first if target == start else known(target)
            if target in came_from or there is None or there.gives:
                continue
            if target == start:
                return (*_path(here, came_from, start), start)
            came_from[target] = here
            queue.append((target, there))
    return ()


def describe_ring(ring: tuple[Reference, ...]) -> str:
    """The ring written out."""
    members = " -> ".join(f"{one.kind}/{one.name}" for one in ring)
    return f"a reference ring: {members}: each waits for the next"


def _path(last: Reference, came_from: dict[Reference, Reference], start: Reference) -> tuple[Reference, ...]:
    """The way from `start` to `last`."""
    steps = [last]
    while steps[-1] != start:
        steps.append(came_from[steps[-1]])
    return tuple(reversed(steps))
