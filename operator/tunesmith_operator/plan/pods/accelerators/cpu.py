"""No device: the CPU computes."""

from __future__ import annotations


def devices(count: int) -> dict[str, str]:
    """None."""
    return {}


def env(computes: bool) -> dict[str, str]:
    """None."""
    return {}


def groups() -> list[int]:
    """None."""
    return []
