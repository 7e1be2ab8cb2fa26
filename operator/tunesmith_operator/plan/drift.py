"""Drift: whether an object still matches its manifest. An object that does needs no write."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal

QUANTITIES = frozenset({"cpu", "memory", "ephemeral-storage", "sizeLimit", "averageValue"})
"""Fields whose values the API server rewrites: 1024Mi becomes 1Gi."""
SUFFIXES = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("0.001"), "": Decimal(1),
    "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12), "P": Decimal(10**15),
    "E": Decimal(10**18), "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40),
    "Pi": Decimal(2**50), "Ei": Decimal(2**60),
}  # fmt: skip
LARGEST = Decimal(2**63 - 1)
SHARED = frozenset(
    {"containers", "initContainers", "env", "volumes", "volumeMounts", "imagePullSecrets", "ports", "ownerReferences"}
)
"""Lists that the API server merges by a key, so that other writers may add items: those of a webhook or a sidecar injector are
not ours to remove, and server-side apply would not remove them."""
EMPTY: tuple[object, ...] = ("", {}, [])
"""Values that the API server omits: most fields are `omitempty`."""


def matches(actual: object, wanted: object, field: str = "") -> bool:
    """Whether `actual` has every field of `wanted`. Fields that the API server has defaulted do not matter."""
    if actual is None and wanted in EMPTY:
        return True
    if isinstance(wanted, Mapping):
        return isinstance(actual, Mapping) and all(
            matches(actual.get(name), value, name) for name, value in wanted.items()
        )
    if isinstance(wanted, list) and field in SHARED:
        rest = iter(actual if isinstance(actual, list) else [])
        return all(any(matches(item, wanted_item) for item in rest) for wanted_item in wanted)
    if isinstance(wanted, list):
        return (
            isinstance(actual, list)
            and len(actual) == len(wanted)
            and all(matches(*pair) for pair in zip(actual, wanted, strict=True))
        )
    if field in QUANTITIES:
        return parse_quantity(actual) == parse_quantity(wanted)
    return actual == wanted


def parse_quantity(text: object) -> Decimal | str:
    """Return the value of a Kubernetes quantity, rounded up and capped as there; text that is no quantity is returned as it is."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([a-zA-Z]*)", str(text))
    if not match or match[2] not in SUFFIXES:
        return str(text)
    number = min(Decimal(match[1]) * SUFFIXES[match[2]], LARGEST)
    return number.quantize(SUFFIXES["n"], rounding=ROUND_CEILING)
