"""Low-rank Kronecker product (Yeh et al., 2024, https://arxiv.org/abs/2309.14859): the update is the Kronecker product of a small
matrix and one of low rank."""

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
    """Return PEFT's configuration. `lora.dropout` drops whole rows of the update."""
    from peft import LoKrConfig

    return LoKrConfig(
        r=lora.rank, alpha=lora.alpha, rank_dropout=lora.dropout, rank_dropout_scale=True, target_modules=targets
    )


LOKR = Tuner(
    TunerName.LOKR,
    artifact=ArtifactType.ADAPTER,
    has_frozen_base=True,
    check=partial(check_adapter, make_config=config),
    apply=partial(add_adapter, make_config=config),
    record_weights=record_trained,
)
