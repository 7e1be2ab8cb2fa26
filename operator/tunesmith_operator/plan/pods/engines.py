"""Which engine serves, and in which image."""

from __future__ import annotations

from tunesmith_api.common import Accelerator
from tunesmith_api.engines import RUNS_ON
from tunesmith_api.engines import choose as choose_from
from tunesmith_api.inferenceservice import Engine
from tunesmith_operator.plan.config import Images


def image(engine: Engine, images: Images) -> str | None:
    """The image that has `engine`; None where none is configured."""
    return images.runtime if engine is Engine.TRANSFORMERS else getattr(images.engines, engine.value, None)


def available(accelerator: Accelerator, images: Images) -> list[Engine]:
    """The engines that have an image and run on the accelerator, in the order in which `auto` prefers them."""
    return [one for one, accelerators in RUNS_ON.items() if accelerator in accelerators and image(one, images)]


def choose(engine: Engine, accelerator: Accelerator, images: Images, before: str | None = None) -> Engine:
    """The named engine; for `auto` the one that was chosen before if it is still there, else the first that fits."""
    there = available(accelerator, images)
    return choose_from(engine, accelerator, [one for one in there if one == before] or there)


def refusals(engine: Engine, accelerator: Accelerator, images: Images) -> list[str]:
    """Why `engine` (chosen) cannot serve here, as sentences; empty where it can."""
    there = f"spec.engine: auto (engines for {accelerator} here: {', '.join(available(accelerator, images))})"
    if accelerator not in RUNS_ON[engine]:
        advice = f"set {there}, or another spec.resources.accelerator"
        return [f"engine {engine} does not run on accelerator {accelerator}: {advice}"]
    if image(engine, images) is None:
        advice = f"set images.engines.{engine} in the chart's values, or {there}"
        return [f"engine {engine} has no image here: {advice}"]
    return []
