"""Cycles of references: resources that would wait for each other forever.

A resource waits for a resource that it names only until that provides what it needs. An EvalJob that scores the model that a
service serves already does not wait, even if its verdict decides what the service serves next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from tunesmith_operator.plan.phases import Phase, is_final
from tunesmith_operator.plan.types import Raw, Reference

MAY_WAIT = frozenset({None, Phase.WAITING, Phase.FAILED, Phase.SUSPENDED})
"""Phases in which a resource may wait for the resources that it names. Failed only if it is not final."""

BREAK_CYCLE = "change the reference of one of them; the spec of a job is fixed: delete the job and apply it with another reference"
"""Hint for every member of a cycle: once one is changed, the others continue by themselves."""


class Node(NamedTuple):
    """A resource in the graph of references."""

    needs: frozenset[Reference]
    """The resources that it may wait for."""
    is_settled: bool
    """Whether no other resource waits for it: it provides what others need, or never will."""


def node(resource: Raw, references: frozenset[Reference]) -> Node:
    """Return the node of a resource that names `references`."""
    status = resource.get("status") or {}
    serves = resource["kind"] == "InferenceService" and bool((status.get("model") or {}).get("uri"))
    is_settled = serves or is_final(resource)
    return Node(references if not is_settled and status.get("phase") in MAY_WAIT else frozenset(), is_settled)


def find_cycle(start: Reference, first: Node, known: Callable[[Reference], Node | None]) -> tuple[Reference, ...]:
    """Return the shortest cycle through `start`, which is its first and last member; empty if there is none."""
    came_from: dict[Reference, Reference] = {}
    queue = deque([(start, first)])
    while queue:
        here, at = queue.popleft()
        for target in sorted(at.needs):
            there = first if target == start else known(target)
            if target in came_from or there is None or there.is_settled:
                continue
            if target == start:
                return (*_path(here, came_from, start), start)
            came_from[target] = here
            queue.append((target, there))
    return ()


def describe_cycle(cycle: tuple[Reference, ...]) -> str:
    """Return the cycle as a message."""
    members = " -> ".join(f"{member.kind}/{member.name}" for member in cycle)
    return f"a reference cycle: {members}: each waits for the next"


def _path(last: Reference, came_from: dict[Reference, Reference], start: Reference) -> tuple[Reference, ...]:
    """Return the path from `start` to `last`."""
    steps = [last]
    while steps[-1] != start:
        steps.append(came_from[steps[-1]])
    return tuple(reversed(steps))
