"""Weight-decomposed low-rank adaptation (Liu et al., 2024, https://arxiv.org/abs/2402.09353): LoRA on the direction of each column
of a weight, and a trained magnitude."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.status import ArtifactType
from tunesmith_api.training import Lora
from tunesmith_api.training import Tuner as TunerName
from tunesmith_runtime.train.tuners.adapter import add_adapter, check_adapter, record_trained
from tunesmith_runtime.train.tuners.base import Tuner

if TYPE_CHECKING:
    from peft import PeftConfig


def config(job: FineTuneJobSpec, lora: Lora, targets: Any) -> PeftConfig:
    """Return PEFT's configuration."""
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        use_rslora=lora.use_rslora,
        use_dora=True,
    )


DORA = Tuner(
    TunerName.DORA,
    artifact=ArtifactType.ADAPTER,
    has_frozen_base=True,
    check=partial(check_adapter, make_config=config),
    apply=partial(add_adapter, make_config=config),
    record_weights=record_trained,
)
