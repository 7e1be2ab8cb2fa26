"""The errors of this package."""

from __future__ import annotations


class ClusterError(Exception):
    """What went wrong, where, and what to do about it, in words for the person at the terminal."""


class ComponentEnded(ClusterError):
    """A process ended by itself while it started: its settings or its data are no good."""

    def __init__(self, component: str, message: str) -> None:
        super().__init__(message)
        self.component = component
