"""Vector-based random matrix adaptation (Kopiczko et al., 2024, https://arxiv.org/abs/2310.11454): all layers share two frozen random
matrices, drawn by the seed and saved with the adapter, and each layer trains two vectors that scale them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.tuners import Lora
from tunesmith_api.tuners import Tuner as TunerName
from tunesmith_runtime.train.tuners.adapter import adapter_tuner

if TYPE_CHECKING:
    from peft import PeftConfig


def config(job: FineTuneJobSpec, lora: Lora, targets: Any) -> PeftConfig:
    """Return PEFT's configuration. There is no alpha: the vectors are trained."""
    from peft import VeraConfig

    return VeraConfig(
        r=lora.rank,
        vera_dropout=lora.dropout,
        target_modules=targets,
        projection_prng_key=job.training.seed,
        save_projection=True,
    )


VERA = adapter_tuner(TunerName.VERA, config)
