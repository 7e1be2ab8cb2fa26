"""Whether devices can share the layers of a model: each has a slice of the heads and of the MLP."""

from __future__ import annotations

from collections.abc import Mapping

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure


def check_sizes(sizes: Mapping[str, int | None], devices: int) -> None:
    """Check that `devices` divide each size that the model has, by its name in config.json. Raises RunFailure (BadSpec)."""
    for name, size in sizes.items():
        if size and size % devices:
            raise not_sliced(f"{name} of the model is {size}, which {devices} devices do not divide")


def not_sliced(why: str) -> RunFailure:
    """Return the failure of a model whose layers devices can't share."""
    return RunFailure(
        FailureClass.BAD_SPEC,
        f"parallelism.tensorParallel: {why}",
        "remove spec.parallelism.tensorParallel; spec.parallelism.strategy: fsdp divides any model",
    )
