"""Kubernetes quantities as numbers."""

from __future__ import annotations

from decimal import Decimal

POWERS = {"": 0, "m": -1, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
"""Suffixes of quantities: powers of 1000, or of 1024 with an i."""


def bytes_of(quantity: str | int) -> int:
    """Return the bytes of a Kubernetes quantity such as 50Gi or 1.5T."""
    text = str(quantity)
    digits = text.rstrip("".join(POWERS) + "i")
    suffix = text.removeprefix(digits)
    return int(Decimal(digits) * Decimal(1024 if suffix.endswith("i") else 1000) ** POWERS[suffix.removesuffix("i")])
