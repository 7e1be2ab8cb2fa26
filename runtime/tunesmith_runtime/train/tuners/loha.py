"""Low-rank Hadamard product (Hyeon-Woo et al., 2022, https://arxiv.org/abs/2108.06098): the update is the elementwise
product of two matrices of low rank. Its rank is up to the square of theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.tuners import Lora
from tunesmith_api.tuners import Tuner as TunerName
from tunesmith_runtime.train.tuners.adapter import adapter_tuner

if TYPE_CHECKING:
    from peft import PeftConfig


def config(job: FineTuneJobSpec, lora: Lora, targets: Any) -> PeftConfig:
    """Return PEFT's configuration. `lora.dropout` drops whole rows of the update."""
    from peft import LoHaConfig

    return LoHaConfig(r=lora.rank, alpha=lora.alpha, rank_dropout=lora.dropout, target_modules=targets)


LOHA = adapter_tuner(TunerName.LOHA, config)
