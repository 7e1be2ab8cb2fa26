"""Weight-decomposed low-rank adaptation (Liu et al., 2024, https://arxiv.org/abs/2402.09353): LoRA on the direction of each column
of a weight, and a trained magnitude."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.tuners import Lora
from tunesmith_api.tuners import Tuner as TunerName
from tunesmith_runtime.train.tuners.adapter import adapter_tuner
from tunesmith_runtime.train.tuners.lora import config as lora_config
from tunesmith_runtime.train.tuners.lora import initialize_from_rows, rate_factor

if TYPE_CHECKING:
    from peft import PeftConfig


def config(job: FineTuneJobSpec, lora: Lora, targets: Any) -> PeftConfig:
    """Return PEFT's configuration: LoRA with magnitudes."""
    dora = lora_config(job, lora, targets)
    dora.use_dora = True
    return dora


DORA = adapter_tuner(TunerName.DORA, config, initialize_from_rows=initialize_from_rows, rate_factor=rate_factor)
