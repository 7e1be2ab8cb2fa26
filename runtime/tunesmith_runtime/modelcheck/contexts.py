"""Whether devices can have a part of the tokens of each row that a model computes."""

from __future__ import annotations

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.modelcheck.stages import FAMILIES


def check_context(kind: str, devices: int) -> None:
    """Check that tokens of a model of type `kind` exchange keys and values alone. Raises RunFailure (BadSpec)."""
    if devices > 1 and kind not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise not_context_parallel(
            f"rows of models of type {kind!r} are not divided in this version, which does so with {known}"
        )


def not_context_parallel(why: str) -> RunFailure:
    """Return the failure of a model whose rows are not divided among devices."""
    return RunFailure(
        FailureClass.BAD_SPEC,
        f"parallelism.contextParallel: {why}",
        "remove spec.parallelism.contextParallel; spec.training.gradientCheckpointing: true needs less memory for long rows",
    )
