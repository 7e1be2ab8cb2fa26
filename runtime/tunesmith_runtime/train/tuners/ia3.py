"""Infused adapter by inhibiting and amplifying inner activations (Liu et al., 2022, https://arxiv.org/abs/2205.05638):
a trained factor for each output of a layer. Scaling the outputs of `up_proj` scales the inner activations of a gated
MLP, as in the paper."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.tuners import Lora
from tunesmith_api.tuners import Tuner as TunerName
from tunesmith_runtime.train.tuners.adapter import adapter_tuner

if TYPE_CHECKING:
    from peft import PeftConfig


def config(job: FineTuneJobSpec, lora: Lora, targets: Any) -> PeftConfig:
    """Return PEFT's configuration. There is neither a rank nor an alpha."""
    from peft import IA3Config

    return IA3Config(target_modules=targets, feedforward_modules=[])


IA3 = adapter_tuner(TunerName.IA3, config)
