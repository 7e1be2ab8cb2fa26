"""Merging an adapter into its base, and the proof that the merged model computes the same."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.modelcheck.loading import with_adapter
from tunesmith_runtime.train.model import load_model, load_tokenizer, save_model, stored_dtype
from tunesmith_runtime.train.tuners.lora import updates
from tunesmith_runtime.train.weight_change import changes_stored

log = logging.getLogger(__name__)

TOLERANCE = 1e-4
"""Largest difference of a float32 logit between base + adapter and the merged model, relative to the largest logit.
Merging adds the update before the product instead of after it, which float32 rounds to about 1e-6."""

STORED_TOLERANCE = 5e-2
"""The same where weights are stored in 16 bits, which rounds them by up to 2^-9."""

PROBES = ("The quick brown fox jumps over the lazy dog.", "1, 2, 3, 5, 8, 13,", "def add(a, b):\n    return")
"""Prompts to compare on, beside rows of the data."""


def merge(base: Path, adapter: Path, folder: Path, prompts: list[str], trust_remote_code: bool = False) -> Path:
    """The base with the adapter merged into it, in the base's own number format, in `folder`; returns `folder`.

    The base is loaded anew in float32: a model that has trained or evaluated may hold its weights otherwise. The folder
    is read back and its logits are compared with those of base and adapter, so that what is compared is what is served.
    Holds one model at a time. Raises RunFailure (NothingLearned, MergeMismatch).
    """
    tokenizer = load_tokenizer(adapter, trust_remote_code)
    model = with_adapter(load_model(base, torch.float32, trust_remote_code), "default", adapter)
    dtype = stored_dtype(base)
    check_changes(model, dtype)
    batches = [ids for prompt in (*PROBES, *prompts) if (ids := _ids(tokenizer, prompt)).numel()]
    expected = logits(model, batches)
    merged = model.merge_and_unload(safe_merge=True)
    check("merged", expected, logits(merged, batches), TOLERANCE)
    save_model(merged.to(dtype), folder, base)
    tokenizer.save_pretrained(folder)
    del model, merged
    stored = load_model(folder, torch.float32, trust_remote_code)
    check("stored", expected, logits(stored, batches), TOLERANCE if dtype is torch.float32 else STORED_TOLERANCE)
    return folder


def check_changes(model: PeftModel, dtype: torch.dtype) -> None:
    """Refuse a merge that would give the base again, bit for bit, as `dtype` rounds the whole adapter away.

    Raises RunFailure (NothingLearned).
    """
    if not any(changes_stored(update, weight, dtype) for update, weight in updates(model)):
        raise RunFailure(
            FailureClass.NOTHING_LEARNED,
            f"the adapter is too small to change a single weight of the base in {str(dtype).removeprefix('torch.')}: the merged model would equal the base",
            "raise spec.training.learningRate, or set spec.export.merge: false to keep the adapter as it is",
        )


def check(what: str, expected: list[Tensor], found: list[Tensor], tolerance: float) -> None:
    """Compare logits, one tensor (tokens, vocabulary) for each prompt.

    Raises RunFailure (MergeMismatch) where the largest difference, relative to the largest logit, is above `tolerance`.
    """
    difference = max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(expected, found, strict=True))
    log.info(
        "%s model: logits differ by %.1e at most, relative to the largest (%.0e is allowed)",
        what,
        difference,
        tolerance,
    )
    if not difference <= tolerance:  # NaN is a mismatch as well
        raise RunFailure(
            FailureClass.MERGE_MISMATCH,
            f"the logits of the {what} model differ from those of base and adapter by {difference:.1e} of the largest, more than {tolerance:.0e}",
        )


@torch.no_grad()
def logits(model: PreTrainedModel | PeftModel, batches: list[Tensor]) -> list[Tensor]:
    """Logits (tokens, vocabulary) of each prompt (1, tokens)."""
    model.eval()
    return [model(input_ids=ids, use_cache=False).logits[0].float() for ids in batches]


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> Tensor:
    return torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"][:256]])
