"""The errors of this package."""

from __future__ import annotations


class ClusterError(Exception):
    """An error for the user at the terminal: cause, place and fix."""


class ComponentEnded(ClusterError):
    """A process ended during its start, because of its settings or its data."""

    def __init__(self, component: str, message: str) -> None:
        super().__init__(message)
        self.component = component
