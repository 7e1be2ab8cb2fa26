"""Evaluates the loading reports of transformers and PEFT. Both only warn if weights stay random; here that is a failure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tunesmith_runtime.modelcheck.failure import bad_model, first_of

HINT = "upload config.json and weights of the same model"
MASK = ".masked_bias"
"""A constant in old checkpoints of GPT-2 and similar models, which no model class lists."""
ADAPTER_HINT = "name the base model that the adapter was trained on, or upload the adapter again"


def check_report(uri: str, report: Mapping[str, Any]) -> None:
    """Check the report of `from_pretrained(..., output_loading_info=True)`. Raises RunFailure (BadModel).

    Model classes have already removed harmless entries from it.
    """
    if faults := "; ".join(_faults(report)):
        raise bad_model(uri, None, f"config.json and the weights do not fit: {faults}", HINT)


def _faults(report: Mapping[str, Any]) -> Iterator[str]:
    shapes = {f"{name} ({_shape(found)}, not {_shape(wanted)})" for name, found, wanted in report["mismatched_keys"]}
    named = (
        ("the files lack", report["missing_keys"]),
        ("the architecture has no", {name for name in report["unexpected_keys"] if not name.endswith(MASK)}),
        ("of another shape", shapes),
    )
    yield from (f"{what} {first_of(names)}" for what, names in named if names)
    yield from report["error_msgs"]


def check_adapter_report(name: str, missing: list[str], unexpected: list[str]) -> None:
    """Check the result of PEFT's load_adapter. Raises RunFailure (BadModel)."""
    named = (("its files lack", missing), ("the base has no", unexpected))
    if faults := "; ".join(f"{what} {first_of(set(names))}" for what, names in named if names):
        raise bad_model(name, None, f"the adapter does not fit its base: {faults}", ADAPTER_HINT)


def _shape(shape: Any) -> str:
    return "x".join(str(size) for size in shape) or "scalar"
