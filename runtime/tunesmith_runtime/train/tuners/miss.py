"""Matrix shard sharing (Kang and Yin, 2024, https://arxiv.org/abs/2409.15371): the update repeats one trained matrix of `rank` rows
over the inputs of a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.tuners import Lora
from tunesmith_api.tuners import Tuner as TunerName
from tunesmith_runtime.train.tuners.adapter import adapter_tuner

if TYPE_CHECKING:
    from peft import PeftConfig


def config(job: FineTuneJobSpec, lora: Lora, targets: Any) -> PeftConfig:
    """Return PEFT's configuration. There is no alpha."""
    from peft import MissConfig

    return MissConfig(r=lora.rank, miss_dropout=lora.dropout, target_modules=targets)


MISS = adapter_tuner(TunerName.MISS, config)
