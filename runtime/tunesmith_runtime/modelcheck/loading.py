"""Loads models and adapters completely: where weights would stay random, transformers and PEFT only warn. Imports torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.modelcheck.adapters import ADAPTER_WEIGHTS, WRAPPED, base_weights
from tunesmith_runtime.modelcheck.config import CONFIG, read_config
from tunesmith_runtime.modelcheck.failure import bad_model, detail
from tunesmith_runtime.modelcheck.files import UPLOAD
from tunesmith_runtime.modelcheck.report import ADAPTER_HINT, HINT, check_adapter_report, check_report
from tunesmith_runtime.tasks import LANGUAGE, Task, class_for

MERGE = "merge the adapter into its base, and name the merged model"
ADAPTED = r"(?:lora|hada|lokr|vera_lambda|oft|ia3|miss|trainable_tokens)_\w+|modules_to_save"
"""Names of the modules and tensors of adapters, by kind."""
VIRTUAL_TOKENS = "prompt_embeddings"
"""Tensor of virtual tokens. PEFT loads it completely, and reports it as unexpected all the same."""
META: dict[str, Any] = {"device_map": "meta"}
"""Options that load names and shapes without values."""


def load_weights(uri: str, folder: Path, task: Task = LANGUAGE, **options: Any) -> PreTrainedModel:
    """Load the model in `folder` for a task, from safetensors only, with `options` of `from_pretrained`. With the option
    `config` it gets a new head; then `folder` may hold a language model.

    Messages name `uri`. Raises RunFailure: ModelNotFound for a missing file, BadModel for a model that cannot be loaded
    completely.
    """
    if not options.get("trust_remote_code"):
        head = {"config": options["config"]} if "config" in options else {}
        _load(uri, folder, task, {**META, **head})  # find missing weights before memory is allocated
    model = _load(uri, folder, task, options)
    for name, parameter in model.named_parameters():
        check_finite(uri, None, name, parameter.detach())
    keep_layout(model)
    return model


def keep_layout(model: Any) -> None:
    """Keep bitsandbytes from packing quantized weights again for CPUs with AVX512-BF16 in an evaluation: later steps would compute otherwise
    than those of a resumed run, and layers of some sizes cannot be packed."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _load(uri: str, folder: Path, task: Task, options: Mapping[str, Any]) -> PreTrainedModel:
    disable_progress_bar()  # progress bars fill a log with control characters
    try:
        loader = getattr(transformers, class_for(task, read_config(uri, folder)))
        model, report = loader.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are in the report
            **options,
        )
    except RunFailure:
        raise
    except OSError as error:
        raise RunFailure(FailureClass.MODEL_NOT_FOUND, f"{uri} cannot be loaded: {detail(error)}") from error
    except Exception as error:  # architectures raise errors of any type for unexpected values
        raise bad_model(uri, None, f"{CONFIG} and the weights cannot be loaded: {detail(error)}", HINT) from error
    check_report(uri, without_heads(report, model, task) if options.get("config") else report)
    return model  # type: ignore[no-any-return]


def without_heads(report: Mapping[str, Any], model: PreTrainedModel, task: Task) -> dict[str, Any]:
    """Return the report of loading a language model without its output layer, and without the new head in its place."""
    body = f"{model.base_model_prefix}."
    missing = {name for name in report["missing_keys"] if name.split(".")[0] not in task.heads}
    unexpected = {name for name in report["unexpected_keys"] if name.startswith(body)}
    return {**report, "missing_keys": missing, "unexpected_keys": unexpected}


def check_finite(uri: str, file: str | None, name: str, tensor: torch.Tensor) -> None:
    """Check that all numbers of a tensor are finite. Raises RunFailure (BadModel).

    `aminmax` propagates NaN. On one core it reads 10 GB of bfloat16 per second, ten times as fast as `isfinite`.
    """
    has_infinities = tensor.is_floating_point() and tensor.element_size() > 1 and not tensor.is_meta
    if has_infinities and tensor.numel() and not all(bool(end.isfinite()) for end in torch.aminmax(tensor)):
        count = int((~tensor.isfinite()).sum())
        raise bad_model(uri, file, f"{count} of {tensor.numel()} numbers of {name} are NaN or infinite", UPLOAD)


def with_adapter(model: Any, name: str, folder: Path, trained_with: Mapping[str, Any] | None = None) -> Any:
    """Add an adapter for inference and return the model. Raises RunFailure (BadModel) if the adapter does not fit.

    `trained_with`: the adapter is to be trained further, with these settings in the place of its own.
    """
    is_trained = trained_with is not None
    from peft import MODEL_TYPE_TO_PEFT_MODEL_MAPPING, PeftConfig, PeftModel

    check_base_kept(model.get_base_model() if isinstance(model, PeftModel) else model, name, folder)
    try:
        if not isinstance(model, PeftModel):
            config = PeftConfig.from_pretrained(str(folder))
            vars(config).update(trained_with or {}, inference_mode=not is_trained)
            wrapper = MODEL_TYPE_TO_PEFT_MODEL_MAPPING.get(config.task_type, PeftModel)
            model = wrapper(model, config, adapter_name=name)
        result = model.load_adapter(str(folder), adapter_name=name, is_trainable=is_trained)
    except Exception as error:  # PEFT raises errors of any type for unexpected settings and shapes
        raise bad_model(f"adapter {name}", None, f"does not fit its base: {detail(error)}", ADAPTER_HINT) from error
    # PEFT searches for the name anywhere in a key: `de` matches `model`, and `model` matches keys of other adapters
    own = re.compile(rf"\.({ADAPTED})\.{re.escape(name)}(\.|$)")
    missing = [key for key in result.missing_keys if own.search(key)]
    unexpected = [
        key for key in result.unexpected_keys if key != VIRTUAL_TOKENS or not hasattr(model, "prompt_encoder")
    ]
    check_adapter_report(f"adapter {name}", missing, unexpected)
    return model if is_trained else model.eval()


def check_base_kept(model: torch.nn.Module, name: str, folder: Path) -> None:
    """Check that the file of an adapter has no weights of the base that differ from those of `model`.

    PEFT sometimes stores embeddings beside an adapter. Equal embeddings are harmless. Raises RunFailure (BadModel).
    """
    if not (found := dict(base_weights(name, folder))):
        return
    weights = {inner.replace(WRAPPED, ""): weight for inner, weight in model.named_parameters()}
    with safe_open(folder / ADAPTER_WEIGHTS, "pt") as file:
        for tensor, inner in found.items():
            weight = weights.get(inner)
            if weight is None or weight.is_meta:
                continue  # PEFT reports weights that the base lacks
            stored = file.get_tensor(tensor).to(weight)
            if stored.shape != weight.shape or not torch.equal(stored, weight):
                sentence = (
                    f"holds other values of the base's weight {inner}, which would change the base for all adapters"
                )
                raise bad_model(f"adapter {name}", ADAPTER_WEIGHTS, sentence, MERGE)
