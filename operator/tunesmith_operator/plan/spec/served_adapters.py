"""Adapters of FineTuneJobs that the engine of a service does not serve, by the specs of these jobs.

The fetch of a pod refuses other adapters, whose configuration only it can read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tunesmith_api.common import ModelSource
from tunesmith_api.engines import adapter_refusal
from tunesmith_api.inferenceservice import Adapter, Engine
from tunesmith_api.refusal import Refusal
from tunesmith_api.tuners import Tuner, tuners_where
from tunesmith_operator.plan.spec.references import References
from tunesmith_operator.plan.types import Raw, Reference


def unserved_adapters(
    served: Mapping[str, ModelSource | Adapter], engine: Engine, references: References
) -> Iterator[Refusal]:
    """Yield why `engine` does not serve adapters, which are `served` by their names beside one base."""
    for name, source in served.items():
        job = references.get(Reference("FineTuneJob", source.fine_tune_job.name)) if source.fine_tune_job else None
        if job is not None:
            kind, parts = _kind(job["spec"]), _parts(job["spec"])
            if refusal := adapter_refusal(name, kind, parts, engine, is_alone=len(served) == 1):
                yield refusal


def _kind(spec: Raw) -> str | None:
    """Return the tuner of an adapter; None for plain LoRA."""
    tuner = spec.get("tuner") or Tuner.LORA
    return None if tuner in tuners_where(lambda facts: facts.is_served) else f"of tuner {tuner}"


def _parts(spec: Raw) -> list[str]:
    """Return what a job has trained beside the layers of its adapter."""
    lora = spec.get("lora") or {}
    return [*(lora.get("modulesToSave") or ()), *(["embeddings of tokens"] if lora.get("trainableTokens") else [])]
