"""Low-rank Kronecker product (Yeh et al., 2024, https://arxiv.org/abs/2309.14859): the update is the Kronecker product of a small
matrix and one of low rank."""

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
    from peft import LoKrConfig

    return LoKrConfig(
        r=lora.rank, alpha=lora.alpha, rank_dropout=lora.dropout, rank_dropout_scale=True, target_modules=targets
    )


LOKR = adapter_tuner(TunerName.LOKR, config)
