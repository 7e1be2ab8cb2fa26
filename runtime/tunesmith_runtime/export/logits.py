"""Logits of a model on fixed prompts, by which models are compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


@torch.no_grad()
def logits(model: PreTrainedModel | PeftModel, batches: list[Tensor]) -> list[Tensor]:
    """Return the logits (tokens, vocabulary) of each prompt (1, tokens); of a head, those of all prompts (prompts, labels)."""
    model.eval()
    found = [model(input_ids=ids, use_cache=False).logits.float() for ids in batches]
    return [each[0] for each in found] if found[0].dim() == 3 else [torch.cat(found)]
