"""Which of the processes that train together this one is, by its environment."""

from __future__ import annotations

import os
from dataclasses import dataclass

from tunesmith_api.run import INDEX_VARIABLE, World

PROCESS_VARIABLE = "TUNESMITH_PROCESS"
"""Set for a process that the verb train has started for one device of its pod: which device, from 0."""


@dataclass(frozen=True)
class Place:
    """A process of a pod, both counted from 0."""

    pod: int = 0
    process: int = 0

    @classmethod
    def own(cls) -> Place:
        """This process's."""
        return cls(int(os.environ.get(INDEX_VARIABLE) or 0), int(os.environ.get(PROCESS_VARIABLE) or 0))

    def rank(self, world: World) -> int:
        """Its number among all."""
        return self.pod * world.processes + self.process


def in_leading_pod(world: World | None) -> bool:
    """Whether this is the pod that speaks for the run: it tells progress, exports and finishes."""
    return world is None or Place.own().pod == 0
