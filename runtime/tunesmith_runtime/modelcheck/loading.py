"""Loading a model and an adapter so that no weight stays random: transformers and PEFT only warn. Imports torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.modelcheck.adapters import ADAPTER_WEIGHTS, WRAPPED, base_weights
from tunesmith_runtime.modelcheck.config import CONFIG
from tunesmith_runtime.modelcheck.failure import bad_model, detail
from tunesmith_runtime.modelcheck.files import UPLOAD
from tunesmith_runtime.modelcheck.report import ADAPTER_HINT, HINT, check_adapter_report, check_report

MERGE = "merge the adapter into its base, and name the merged model"
META = {"device_map": "meta"}
"""Loads names and shapes, and reads no numbers."""


def load_weights(uri: str, folder: Path, **options: Any) -> PreTrainedModel:
    """The causal language model in `folder`, from safetensors only; `options` as `from_pretrained` takes them.

    `uri` is what messages call it. Raises RunFailure: ModelNotFound where a file is missing, BadModel where it can't be
    loaded whole.
    """
    if not options.get("trust_remote_code"):
        _load(uri, folder, META)  # before memory is taken for weights that are not there
    model = _load(uri, folder, options)
    for name, parameter in model.named_parameters():
        check_finite(uri, None, name, parameter.detach())
    return model


def _load(uri: str, folder: Path, options: Mapping[str, Any]) -> PreTrainedModel:
    disable_progress_bar()  # a log is no terminal
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # the report has them
            **options,
        )
    except OSError as error:
        raise RunFailure(FailureClass.MODEL_NOT_FOUND, f"{uri} can't be loaded: {detail(error)}") from error
    except Exception as error:  # an architecture raises anything at values that it does not expect
        raise bad_model(uri, None, f"{CONFIG} and the weights can't be loaded: {detail(error)}", HINT) from error
    check_report(uri, report)
    return model  # type: ignore[no-any-return]


def check_finite(uri: str, file: str | None, name: str, tensor: torch.Tensor) -> None:
    """Check that all numbers of a tensor are finite. Raises RunFailure (BadModel).

    `aminmax` hands NaN on; on one core it reads 10 GB of bfloat16 in a second, ten times as fast as `isfinite`.
    """
    has_infinities = tensor.is_floating_point() and tensor.element_size() > 1 and not tensor.is_meta
    if has_infinities and tensor.numel() and not all(bool(end.isfinite()) for end in torch.aminmax(tensor)):
        count = int((~tensor.isfinite()).sum())
        raise bad_model(uri, file, f"{count} of {tensor.numel()} numbers of {name} are NaN or infinite", UPLOAD)


def with_adapter(model: Any, name: str, folder: Path) -> Any:
    """`model` with one more adapter, named `name`, for inference. Raises RunFailure (BadModel) where it does not fit."""
    from peft import PeftConfig, PeftModel, PeftModelForCausalLM

    check_base_kept(model.get_base_model() if isinstance(model, PeftModel) else model, name, folder)
    try:
        if not isinstance(model, PeftModel):
            config = PeftConfig.from_pretrained(str(folder), inference_mode=True)
            model = PeftModelForCausalLM(model, config, adapter_name=name)
        result = model.load_adapter(str(folder), adapter_name=name)
    except Exception as error:  # PEFT raises anything at settings and shapes that it does not expect
        raise bad_model(f"adapter {name}", None, f"does not fit its base: {detail(error)}", ADAPTER_HINT) from error
    # PEFT looks for the name anywhere in a key, so that `de` is found in `model`, and `model` in keys of other adapters
    own = re.compile(rf"\.(lora_\w+|trainable_tokens_\w+|modules_to_save)\.{re.escape(name)}(\.|$)")
    missing = [key for key in result.missing_keys if own.search(key)]
    check_adapter_report(f"adapter {name}", missing, result.unexpected_keys)
    return model.eval()


def check_base_kept(model: torch.nn.Module, name: str, folder: Path) -> None:
    """Check that the file of an adapter has no weights of the base that differ from those of `model`.

    PEFT stores embeddings beside an adapter in some cases; equal ones are harmless. Raises RunFailure (BadModel).
    """
    if not (found := dict(base_weights(name, folder))):
        return
    weights = {inner.replace(WRAPPED, ""): weight for inner, weight in model.named_parameters()}
    with safe_open(folder / ADAPTER_WEIGHTS, "pt") as file:
        for tensor, inner in found.items():
            weight = weights.get(inner)
            if weight is None or weight.is_meta:
                continue  # PEFT's report has what the base lacks
            stored = file.get_tensor(tensor).to(weight)
            if stored.shape != weight.shape or not torch.equal(stored, weight):
                sentence = f"holds {inner} of the base itself with other numbers, which would change the base for all"
                raise bad_model(f"adapter {name}", ADAPTER_WEIGHTS, sentence, MERGE)
