"""Serving engines: the accelerators that each supports, and the resolution of `auto`."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tunesmith_api.common import Accelerator
from tunesmith_api.inferenceservice import Engine

DEVICES = frozenset({Accelerator.NVIDIA, Accelerator.ASCEND})

RUNS_ON: Mapping[Engine, frozenset[Accelerator]] = {
    Engine.LMDEPLOY: DEVICES,
    Engine.VLLM: DEVICES,
    Engine.SGLANG: DEVICES,
    Engine.TRANSFORMERS: frozenset(Accelerator),
}
"""In the order in which `auto` prefers them. The last runs everywhere, and every runtime image has it."""


def engine_candidates(accelerator: Accelerator, available: Collection[Engine]) -> list[Engine]:
    """Return the available engines that run on `accelerator`, in order of preference."""
    return [engine for engine, accelerators in RUNS_ON.items() if engine in available and accelerator in accelerators]


def resolve_engine(
    engine: Engine, accelerator: Accelerator, available: Collection[Engine], previous: str | None = None
) -> Engine:
    """Resolve `auto` to the previous choice while it is a candidate, else to the first candidate.

    A named engine is returned as it is. Without any candidate `auto` is transformers.
    """
    if engine is not Engine.AUTO:
        return engine
    fit = engine_candidates(accelerator, available)
    return next((candidate for candidate in fit if candidate == previous), next(iter(fit), Engine.TRANSFORMERS))
