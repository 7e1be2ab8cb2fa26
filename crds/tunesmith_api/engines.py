"""Serving engines: what each runs on, and which one `auto` stands for."""

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


def choose(engine: Engine, accelerator: Accelerator, available: Collection[Engine]) -> Engine:
    """The engine to serve with: the named one; for `auto` the first that is available and runs on the accelerator."""
    if engine is not Engine.AUTO:
        return engine
    fit = (one for one, accelerators in RUNS_ON.items() if one in available and accelerator in accelerators)
    return next(fit, Engine.TRANSFORMERS)
