"""Serving engines: the accelerators that each supports, and the resolution of `auto`."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tunesmith_api.compatibility import ENGINES
from tunesmith_api.inferenceservice import Engine
from tunesmith_api.pods import Accelerator

RUNS_ON: Mapping[Engine, frozenset[Accelerator]] = {
    Engine(str(row.value)): frozenset(Accelerator) - set(row.excludes.get("resources.accelerator", ()))
    for row in ENGINES
}
"""Engine -> the accelerators that it supports, in the order of ENGINES."""


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
