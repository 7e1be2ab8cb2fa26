"""Estimates of other tools for the same trainings."""

from __future__ import annotations

from tests.bench.estimate.cases import Case
from tunesmith_runtime.estimate.architecture import Architecture


def accelerate_bytes(sizes: Architecture) -> int:
    """Return accelerate's estimate of a training with Adam in float32, which leaves out adapters and activations."""
    from accelerate.commands.estimate import estimate_training_usage

    return int(max(estimate_training_usage(sizes.parameters * 4, "float32").values()))


def training_hub_bytes(case: Case, sizes: Architecture) -> int:
    """Return the middle estimate of training_hub 0.11.2, by the formulas of its profiling/memory_estimator.py.

    BasicEstimator for all weights, LoRAEstimator for an adapter; one GPU.
    """
    tokens = case.rows * case.length
    if case.tuner == "full":
        weights = 4 * sizes.parameters * (1 + 1 + 2)
        activations = 4 * tokens * sizes.layers * sizes.hidden
        return round(1.1 * (weights + activations + 4 * tokens * sizes.vocabulary * 8 / 3))
    adapter = 16 * sizes.layers * sum(each.inputs + each.outputs for each in sizes.linears)
    weights = 2 * sizes.parameters + 4 * adapter + 2 * 2 * adapter
    activations = 2 * tokens * sizes.layers * sizes.hidden
    return round(1.1 * (weights + activations + max(2 * adapter, 2 * tokens * sizes.vocabulary * 2)))
