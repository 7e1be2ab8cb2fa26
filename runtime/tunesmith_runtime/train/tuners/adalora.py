"""Adaptive low-rank adaptation (Zhang et al., 2023, https://arxiv.org/abs/2303.10512): updates in the form of a
singular value decomposition. The least important singular values are set to zero during the training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.tuners import AdaLora, Lora
from tunesmith_api.tuners import Tuner as TunerName
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.tuners.adapter import adapter_tuner

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import TrainerCallback

UNKNOWN_STEPS = 1 << 30
"""Placeholder for the steps in PEFT's configuration, until the number of the run's steps is known."""
INITIAL_SHARE, FINAL_SHARE = 0.1, 0.3
"""Shares of the steps that are the defaults of adalora.initialSteps and finalSteps."""


def config(job: FineTuneJobSpec, lora: Lora, targets: Any) -> PeftConfig:
    """Return PEFT's configuration, without the schedule."""
    from peft import AdaLoraConfig

    return AdaLoraConfig(
        init_r=(job.adalora or AdaLora()).initial_rank_for(lora.rank),
        target_r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        total_step=UNKNOWN_STEPS,
    )


def schedule(job: FineTuneJobSpec, steps: int) -> tuple[int, int]:
    """Return the number of steps before and after the reduction of ranks. Raises RunFailure (BadSpec) if a run of
    `steps` steps has no step between them.
    """
    settings = job.adalora or AdaLora()
    initial = round(INITIAL_SHARE * steps) if settings.initial_steps is None else settings.initial_steps
    final = round(FINAL_SHARE * steps) if settings.final_steps is None else settings.final_steps
    if initial + final >= steps:
        raise RunFailure(
            FailureClass.BAD_SPEC,
            f"adalora.initialSteps {initial} and adalora.finalSteps {final} leave none of the run's {steps} steps to reduce ranks in",
            f"set spec.adalora.initialSteps and spec.adalora.finalSteps to less than {steps} together, or train for more than {initial + final} steps",
        )
    return initial, final


def callbacks(model: PeftModel, job: FineTuneJobSpec, steps: int, resumed: Path | None) -> Sequence[TrainerCallback]:
    """Return the callback that reduces the ranks."""
    from tunesmith_runtime.train.tuners.rank_allocation import RankAllocation

    initial, final = schedule(job, steps)
    settings = model.peft_config["default"]
    settings.total_step, settings.tinit, settings.tfinal = steps, initial, final
    settings.deltaT = (job.adalora or AdaLora()).every_steps
    return [RankAllocation(model, resumed)]


ADALORA = adapter_tuner(
    TunerName.ADALORA, config, check_steps=lambda job, steps: schedule(job, steps), callbacks=callbacks
)
