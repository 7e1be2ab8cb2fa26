"""The rank of this process among those that train together, from its environment."""

from __future__ import annotations

import os
from dataclasses import dataclass

from tunesmith_api.run import INDEX_VARIABLE, World

PROCESS_VARIABLE = "TUNESMITH_PROCESS"
"""Environment variable with the device, from 0, of a process that the verb train has started for one device of its pod."""


@dataclass(frozen=True)
class Rank:
    """A process of a pod, both counted from 0."""

    pod: int = 0
    process: int = 0

    @classmethod
    def from_environment(cls) -> Rank:
        """Return the rank of this process."""
        return cls(int(os.environ.get(INDEX_VARIABLE) or 0), int(os.environ.get(PROCESS_VARIABLE) or 0))

    def of(self, world: World) -> int:
        """Return the rank among all processes of `world`."""
        return self.pod * world.processes + self.process


def in_leading_pod(world: World | None) -> bool:
    """Return whether this pod reports progress, exports and finishes the run."""
    return world is None or Rank.from_environment().pod == 0
