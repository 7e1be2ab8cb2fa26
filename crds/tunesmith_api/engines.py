"""Serving engines: the accelerators and adapters that each supports, and the resolution of `auto`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from tunesmith_api.compatibility import ENGINES, PARTS_ENGINES
from tunesmith_api.inferenceservice import Engine
from tunesmith_api.pods import Accelerator
from tunesmith_api.refusal import Refusal

RUNS_ON: Mapping[Engine, frozenset[Accelerator]] = {
    Engine(str(engine)): frozenset(Accelerator) - set(row.excludes.get("resources.accelerator", ()))
    for row in ENGINES
    for engine in row.values
}
"""Engine -> the accelerators that it supports, in the order of ENGINES."""
MERGE = "merge the adapter (export.merge: true) and serve the merged model"
PROMPTS = frozenset({"PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", "of tuner prompt"})
"""Kinds of adapters that stand before the rows instead of changing weights, so that they cannot be merged."""
UNMERGED = "load it with PEFT beside its base, or train another with spec.tuner: lora"


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


def adapter_refusal(
    name: str, kind: str | None, parts: Sequence[str], engine: Engine, is_alone: bool
) -> Refusal | None:
    """Return why an engine does not serve an adapter beside its base; None if it does.

    `kind`: the adapter's method, None for plain LoRA. `parts`: what was trained beside its layers. `is_alone`: no other adapter is
    served beside the base.
    """
    if kind:
        hint = UNMERGED if kind in PROMPTS else MERGE
        return Refusal(f"adapter {name} is {kind}: only plain LoRA adapters are served beside a base model", hint)
    if not parts:
        return None
    trained = f"adapter {name} was trained with {' and '.join(parts)} beside its layers"
    if engine not in PARTS_ENGINES:
        able = " or ".join(PARTS_ENGINES)
        return Refusal(f"{trained}, which the engine {engine} does not serve", f"{MERGE}, or set spec.engine: {able}")
    if not is_alone:
        return Refusal(
            f"{trained}, which the engine {engine} serves only without other adapters",
            f"{MERGE}, or serve the adapter by an InferenceService of its own",
        )
    return None
