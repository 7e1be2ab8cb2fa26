"""Merges an adapter into its base, and checks that the merged model computes the same logits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import safe_open
from torch import Tensor
from torch.nn import Module
from transformers import AutoConfig, PreTrainedTokenizerBase

from tunesmith_api.failures import FailureClass
from tunesmith_api.training import ModelPart
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.export.quantized_base import check_distance, trained_logits
from tunesmith_runtime.modelcheck.adapters import ADAPTER_WEIGHTS
from tunesmith_runtime.modelcheck.loading import with_adapter
from tunesmith_runtime.multimodal.part_names import part_of_weight
from tunesmith_runtime.multimodal.processor import MediaProcessor
from tunesmith_runtime.tasks import LANGUAGE, Task
from tunesmith_runtime.train.models.embedding import copy_files
from tunesmith_runtime.train.models.files import load_model, load_tokenizer, save_model, stored_dtype
from tunesmith_runtime.train.models.logits import Batch, logits
from tunesmith_runtime.train.models.modalities import copy_processor
from tunesmith_runtime.train.models.weight_change import stored_bits

log = logging.getLogger(__name__)

TOLERANCE = 1e-4
"""Maximum difference of a float32 logit between base + adapter and the merged model, relative to the largest logit.
The merged model adds the update before the product instead of after it, which rounding in float32 changes by about 1e-6."""

STORED_TOLERANCE = 5e-2
"""The same for weights stored in 16 bits, which are rounded by up to 2^-9."""

PROBES = ("The quick brown fox jumps over the lazy dog.", "1, 2, 3, 5, 8, 13,", "def add(a, b):\n    return")
"""Prompts for the comparison, beside rows of the data."""


def merge(
    base: Path,
    adapter: Path,
    folder: Path,
    prompts: list[str],
    trust_remote_code: bool = False,
    quantization: Mapping[str, Any] | None = None,
    task: Task = LANGUAGE,
    trained_adapter: Path | None = None,
    check: Callable[[Any], None] = lambda model: None,
) -> Path:
    """Merge the adapter into the base, save the model in `folder` in the base's number format, and return `folder`.

    The base is loaded again in float32, as training may have changed the number format of its weights. The saved model is
    loaded from `folder` and compared with base and adapter, so that the comparison covers the model that is served; where the adapter
    has weights in what reads images, also on an image.
    `quantization`: options that quantize the base as the training did; the merged model is then compared with that too, beside the
    `trained_adapter` if that is another. `check` compares base and adapter, as loaded, with the model that was trained.
    The head of a classifier, reward model or reranker comes from the adapter. A single model is in memory at a time.
    Raises RunFailure (NothingLearned, MergeMismatch, ReloadMismatch).
    """
    tokenizer = load_tokenizer(adapter, trust_remote_code)
    dtype = stored_dtype(base)
    batches: list[Batch] = [ids for prompt in (*PROBES, *prompts) if (ids := _ids(tokenizer, prompt)).numel()]
    if adapts_images(adapter):
        batches.append(MediaProcessor.load(base, trust_remote_code).probe())
    trained = None
    if quantization:
        options = {**quantization, **loaded_with(adapter, task, trust_remote_code)}
        trained = trained_logits(base, trained_adapter or adapter, batches, options, trust_remote_code, check)
    head = loaded_with(adapter, task, trust_remote_code)
    model = with_adapter(load_model(base, trust_remote_code, dtype=torch.float32, **head), "default", adapter)
    if not quantization:
        check(model)
    expected = logits(model, batches)
    adapted = adapted_weights(model)
    before = checksums(adapted, dtype)
    if trained:
        with model.disable_adapter():
            check_distance(trained, logits(model, batches), expected)
    merged = model.merge_and_unload(safe_merge=True)
    compare_logits("merged", expected, logits(merged, batches), TOLERANCE)
    check_changed(before, checksums(adapted, dtype), dtype)
    save_model(merged.to(dtype), folder, base)
    tokenizer.save_pretrained(folder)
    copy_files(adapter, folder)
    copy_processor(adapter, folder)  # with the pixels that the adapter was trained on
    del model, merged
    stored = load_model(folder, trust_remote_code, task, dtype=torch.float32)
    compare_logits(
        "stored", expected, logits(stored, batches), TOLERANCE if dtype is torch.float32 else STORED_TOLERANCE
    )
    return folder


def adapts_images(adapter: Path) -> bool:
    """Return whether an adapter has weights in what reads images."""
    with safe_open(adapter / ADAPTER_WEIGHTS, "pt") as tensors:
        return any(part_of_weight(name) is not ModelPart.LANGUAGE for name in tensors.keys())  # noqa: SIM118  # no dictionary


def loaded_with(adapter: Path, task: Task, trust_remote_code: bool) -> dict[str, Any]:
    """Return the options that load a base for the task of an adapter: with the config beside it, unless it writes text."""
    if task is LANGUAGE:
        return {"task": task}
    return {"task": task, "config": AutoConfig.from_pretrained(adapter, trust_remote_code=trust_remote_code)}


def adapted_weights(model: PeftModel) -> list[tuple[Module, str]]:
    """Return the layers of the base that an adapter of any kind changes, each with the name of the parameter."""
    layers = (layer for layer in model.modules() if isinstance(layer, BaseTunerLayer))
    return [(layer.get_base_layer(), getattr(layer, "parameter_name", "weight")) for layer in layers]


def checksums(weights: list[tuple[Module, str]], dtype: torch.dtype) -> list[int]:
    """Return a checksum of each weight as stored in `dtype`."""
    return [stored_bits(getattr(layer, name), dtype, 0.0) for layer, name in weights]


def check_changed(before: list[int], after: list[int], dtype: torch.dtype) -> None:
    """Refuse a merge that equals the base because `dtype` rounds the whole update away. Raises RunFailure (NothingLearned)."""
    if before == after:
        raise RunFailure(
            FailureClass.NOTHING_LEARNED,
            f"the adapter is too small to change a single weight of the base in {str(dtype).removeprefix('torch.')}: the merged model would equal the base",
            "raise spec.training.learningRate, or set spec.export.merge: false to keep the adapter as it is",
        )


def compare_logits(model: str, expected: list[Tensor], actual: list[Tensor], tolerance: float) -> None:
    """Compare logits as `logits` returns them.

    Raises RunFailure (MergeMismatch) if the largest difference, relative to the largest logit, is above `tolerance`.
    """
    difference = max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(expected, actual, strict=True))
    log.info(
        "%s model: logits differ by %.1e at most, relative to the largest (%.0e is allowed)",
        model,
        difference,
        tolerance,
    )
    if not difference <= tolerance:  # NaN is a mismatch as well
        raise RunFailure(
            FailureClass.MERGE_MISMATCH,
            f"the logits of the {model} model differ from those of base and adapter by {difference:.1e} of the largest, more than {tolerance:.0e}",
        )


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> Tensor:
    return torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"][:256]])
