"""Low-rank adaptation (Hu et al., 2021): the base is frozen, every linear layer but the head gets an update of low rank."""

from __future__ import annotations

from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec, Lora
from tunesmith_runtime.errors import RunFailure

ARTIFACT = "adapter"
LEARNING_RATE = 1e-4
FROZEN_BASE = True
"""The base is only read, so it may be loaded in the number format that the device computes in."""


def apply(model: PreTrainedModel, job: FineTuneJobSpec) -> PeftModel:
    """`model` with fresh adapters in float32; their initialization follows torch's seed.

    Raises RunFailure (BadSpec) for layers that the model does not have.
    """
    lora = job.lora or Lora()
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules or "all-linear",
        use_rslora=lora.use_rslora,
        task_type="CAUSAL_LM",
    )
    if "lm_head" in (lora.target_modules or ()):
        raise RunFailure(
            FailureClass.BAD_SPEC,
            "lora.targetModules names the output head lm_head, which is not adapted",
            "remove lm_head from it",
        )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        linear = sorted(
            {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if type(module).__name__ == "Linear"}
        )
        raise RunFailure(
            FailureClass.BAD_SPEC, f"lora.targetModules: {error}", f"use some of {', '.join(linear)}"
        ) from error
