"""The spec hash: equal for specs that must give equal results, so that finished work can be found again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

IRRELEVANT = frozenset(
    {
        "suspend", "queueName", "retries", "deadline", "pendingDeadline", "ttlAfterFinished",
        "pod", "resources", "checkpoint", "output", "storage",
    }
)  # fmt: skip
"""Fields of a spec that decide where, when and how often, but not what comes out."""


IRRELEVANT_BELOW: Mapping[str, frozenset[str]] = {"parallelism": frozenset({"near"})}
"""The same within a block."""


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal values give equal bytes, 1.0 and 1 among them, as in the API server."""
    return json.dumps(_plain_numbers(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _plain_numbers(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: _plain_numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_numbers(item) for item in value]
    return value


def digest(value: Any) -> str:
    """sha256 of a JSON value, as hex."""
    return hashlib.sha256(canonical(value)).hexdigest()


def _relevant(field: str, value: Any) -> Any:
    if field == "training" and not {"epochs", "maxSteps"} & value.keys():
        return {**value, "epochs": 1}  # what it means; releases up to 0.2 stored it in every spec
    left_out = IRRELEVANT_BELOW.get(field)
    return {key: below for key, below in value.items() if key not in left_out} if left_out else value


def spec_hash(kind: str, spec: Mapping[str, Any]) -> str:
    """The first 16 hex digits of the hash of what decides the result of `spec` (camelCase data, defaults filled in)."""
    relevant = {key: _relevant(key, value) for key, value in spec.items() if key not in IRRELEVANT}
    return digest({"kind": kind, "spec": relevant})[:16]
