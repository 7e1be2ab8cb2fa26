"""Low-rank adaptation of a quantized base (Dettmers et al., 2023, https://arxiv.org/abs/2305.14314), by bitsandbytes.

Linear layers are quantized one after the other while they are loaded. All other weights (embeddings, norms, the output head) are in float32,
as PEFT's `prepare_model_for_kbit_training` makes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.tuners import BaseQuantization, Lora, LoraInit, Qlora
from tunesmith_api.tuners import Tuner as TunerName
from tunesmith_runtime.train.tuners.adapter import adapter_tuner, add_adapter
from tunesmith_runtime.train.tuners.loftq import begin_with_error
from tunesmith_runtime.train.tuners.lora import config, initialize_from_rows, rate_factor, record_weights
from tunesmith_runtime.train.tuners.start import record_start

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel


def load_options(job: FineTuneJobSpec, compute: torch.dtype, device: str) -> Mapping[str, Any]:
    """Return the options that quantize the base. Quantized weights can't be moved: they are loaded on the device."""
    import torch
    from transformers import BitsAndBytesConfig

    settings = job.qlora or Qlora()
    if settings.quantization is BaseQuantization.INT8:
        quantization = BitsAndBytesConfig(load_in_8bit=True)
    else:
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=settings.double_quantization,
            bnb_4bit_compute_dtype=compute,
        )
    return {"dtype": torch.float32, "quantization_config": quantization, "device_map": {"": device}}


def apply(
    model: PreTrainedModel, job: FineTuneJobSpec, initial: Path | None = None, tokens: Sequence[int] = ()
) -> PeftModel:
    """Return the quantized `model` with a new adapter in float32, or with the one in the folder `initial`. Raises RunFailure (BadSpec,
    BadModel)."""
    adapted = add_adapter(model, job, initial, tokens, make_config=config)
    if initial is None and (job.lora or Lora()).init is LoraInit.LOFTQ:
        begin_with_error(adapted, Path(model.name_or_path))
    # TRL's trainers convert the adapter of a model with these marks to bfloat16, which rounds small updates away.
    model.is_loaded_in_4bit = model.is_loaded_in_8bit = False
    return adapted


QLORA = adapter_tuner(
    TunerName.QLORA,
    config,
    record_weights,
    apply=apply,
    load_options=load_options,
    initialize_from_rows=initialize_from_rows,
    rate_factor=rate_factor,
    record_start=record_start,
    quantizes_base=True,
    needs=frozenset({"bitsandbytes"}),
)
