"""The one error of this package."""

from __future__ import annotations


class ClusterError(Exception):
    """What went wrong, where, and what to do about it, in words for the person at the terminal."""
