"""Serving engines of this installation: their images, and why one cannot be used."""

from __future__ import annotations

from tunesmith_api.engines import RUNS_ON, engine_candidates
from tunesmith_api.inferenceservice import Engine
from tunesmith_api.pods import Accelerator
from tunesmith_api.refusal import Refusal
from tunesmith_operator.plan.config import Images


def image(engine: Engine, images: Images) -> str | None:
    """Return the image that contains `engine`; None if none is configured."""
    return images.runtime if engine is Engine.TRANSFORMERS else getattr(images.engines, engine.value, None)


def installed(images: Images) -> list[Engine]:
    """Return the engines that have an image."""
    return [engine for engine in RUNS_ON if image(engine, images)]


def refusals(engine: Engine, accelerator: Accelerator, images: Images) -> list[Refusal]:
    """Return why `engine` (not `auto`) cannot run on `accelerator` here; empty if it can."""
    names = ", ".join(engine_candidates(accelerator, installed(images)))
    alternative = f"spec.engine: auto (engines for {accelerator} here: {names})"
    if accelerator not in RUNS_ON[engine]:
        advice = f"set {alternative}, or another spec.resources.accelerator"
        return [Refusal(f"engine {engine} does not run on accelerator {accelerator}", advice)]
    if image(engine, images) is None:
        advice = f"set images.engines.{engine} in the chart's values, or {alternative}"
        return [Refusal(f"engine {engine} has no image here", advice)]
    return []
