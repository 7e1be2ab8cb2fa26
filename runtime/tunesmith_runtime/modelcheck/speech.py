"""What a FineTuneJob may ask for if its base is a speech model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.method_facts import Method
from tunesmith_api.training import Strategy
from tunesmith_api.tuners import Lora, LoraInit, Tuner
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.tasks import is_speech

TUNERS = (Tuner.LORA, Tuner.DORA, Tuner.FULL)
STRATEGIES = (Strategy.AUTO, Strategy.DDP)

UNAVAILABLE: tuple[tuple[str, Callable[[FineTuneJobSpec], bool], str], ...] = (
    ("method", lambda job: job.method is not Method.SFT, "set spec.method: sft"),
    ("tuner", lambda job: job.tuner not in TUNERS, f"set spec.tuner to one of {', '.join(TUNERS)}"),
    ("lora.init", lambda job: (job.lora or Lora()).init is LoraInit.EVA, "remove spec.lora.init"),
    ("training.packing", lambda job: job.training.packing, "set spec.training.packing: false"),
    ("training.streaming", lambda job: job.training.streaming, "set spec.training.streaming: false"),
    ("training.compile", lambda job: job.training.compile, "set spec.training.compile: false"),
    ("samples", lambda job: job.samples is not None, "remove spec.samples"),
    (
        "parallelism.strategy",
        lambda job: job.parallelism.strategy not in STRATEGIES,
        "set spec.parallelism.strategy: ddp",
    ),
    *(
        (
            f"parallelism.{name}",
            lambda job, field=field: getattr(job.parallelism, field) > 1,
            f"remove spec.parallelism.{name}",
        )
        for name, field in (
            ("tensorParallel", "tensor_parallel"),
            ("pipelineParallel", "pipeline_parallel"),
            ("contextParallel", "context_parallel"),
        )
    ),
)
"""Field, whether a job sets it to what speech models do not support, and the hint."""


def check_speech(job: FineTuneJobSpec, config: Mapping[str, Any]) -> None:
    """Refuse settings that this version does not support for the speech model of a config.json. Raises RunFailure (BadSpec)."""
    if not is_speech(config):
        return
    for field, is_set, hint in UNAVAILABLE:
        if is_set(job):
            setting = f"{field} {_value(job, field)}".strip()
            sentence = f"{setting} is not available for speech models ({config.get('model_type')}) in this version"
            raise RunFailure(FailureClass.BAD_SPEC, sentence, hint)


def _value(job: FineTuneJobSpec, field: str) -> str:
    """The value of a field in the manifest; empty for blocks."""
    found: Any = job.to_dict()
    for name in field.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return "" if isinstance(found, dict | list | None) else str(found).lower()
