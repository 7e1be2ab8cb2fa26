"""Which engine serves, and in which image."""

from __future__ import annotations

from tunesmith_api.common import Accelerator
from tunesmith_api.inferenceservice import Engine
from tunesmith_operator.plan.config import Images

DEVICES = frozenset({Accelerator.NVIDIA, Accelerator.ASCEND})

RUNS_ON: dict[Engine, frozenset[Accelerator]] = {
    Engine.LMDEPLOY: DEVICES,
    Engine.VLLM: DEVICES,
    Engine.SGLANG: DEVICES,
    Engine.TRANSFORMERS: frozenset(Accelerator),
}


def choose(engine: Engine, accelerator: Accelerator) -> Engine:
    """The engine that `auto` stands for: LMDeploy on devices, transformers on the CPU."""
    if engine is not Engine.AUTO:
        return engine
    return Engine.LMDEPLOY if accelerator in DEVICES else Engine.TRANSFORMERS


def image(engine: Engine, images: Images) -> str | None:
    """The image that has `engine`; None where none is configured."""
    return images.runtime if engine is Engine.TRANSFORMERS else getattr(images.engines, engine.value, None)


def refusals(engine: Engine, accelerator: Accelerator, images: Images) -> list[str]:
    """Why `engine` (chosen) cannot serve here, as sentences; empty where it can."""
    if accelerator not in RUNS_ON[engine]:
        return [
            f"engine {engine} does not run on accelerator {accelerator}: set engine: transformers or another accelerator"
        ]
    if image(engine, images) is None:
        advice = f"set images.engines.{engine} in the chart's values, or spec.engine: transformers"
        return [f"engine {engine}: no image configured; {advice}"]
    return []
