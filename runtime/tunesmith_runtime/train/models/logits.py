"""Logits of a model on fixed tokens, by which models are compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tunesmith_runtime.multimodal.speech import FRAMES_OF_POSITION
from tunesmith_runtime.tasks import is_speech
from tunesmith_runtime.train.training_result import TrainedLogits

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

ROWS, TOKENS, POSITIONS = 2, 32, 4
"""Rows of a run whose logits are recorded, tokens of each at its end, and positions of these."""


Batch = Tensor | Mapping[str, Tensor]
"""The tokens of a prompt, (1, tokens), or all inputs of the model for it."""


@torch.no_grad()
def logits(model: PreTrainedModel | PeftModel, batches: Sequence[Batch]) -> list[Tensor]:
    """Return the logits (tokens, vocabulary) of each prompt; of a head, those of all prompts (prompts, labels); without an
    output layer, the last hidden states (tokens, size). A speech model hears the same sound with each."""
    model.eval()
    inputs = (inputs_of(model, batch) if isinstance(batch, Tensor) else batch for batch in batches)
    outputs = (model(**each, use_cache=False) for each in inputs)
    found = [(each.logits if "logits" in each else each.last_hidden_state).float() for each in outputs]
    return [each[0] for each in found] if found[0].dim() == 3 else [torch.cat(found)]


def inputs_of(model: PreTrainedModel | PeftModel, ids: Tensor) -> dict[str, Tensor]:
    """Return the inputs of a model for tokens (1, tokens): of a speech model, with features of a fixed sound, which every weight of the
    encoder changes."""
    config: Any = model.config
    if not is_speech({"model_type": config.model_type}):
        return {"input_ids": ids}
    shape = 1, config.num_mel_bins, FRAMES_OF_POSITION * config.max_source_positions
    features = torch.arange(shape[1] * shape[2], device=ids.device).sin().view(shape)
    return {"input_features": features.to(model.dtype), "decoder_input_ids": ids}


def record_logits(model: PreTrainedModel | PeftModel, rows: Iterable[Sequence[int]], bf16: bool) -> TrainedLogits:
    """Return logits of the ends of the first rows, each with at least a token, by the trained model on its device.

    `bf16`: whether it computes in bfloat16, as it did in training.
    """
    ends = [list(ids[-TOKENS:]) for ids in islice(rows, ROWS)]
    with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
        found = [row_logits(model, ids) for ids in ends]
    return TrainedLogits(
        rows=ends,
        values=[sample(each, ids).tolist() for each, ids in zip(found, ends, strict=True)],
        largest=[float(each.abs().max()) for each in found],
        bf16=bf16,
    )


def row_logits(model: PreTrainedModel | PeftModel, ids: Sequence[int]) -> Tensor:
    """Return the logits of a row by itself, (tokens, vocabulary) or (1, labels), in float32."""
    (found,) = logits(model, [torch.tensor([ids], device=model.device)])
    return found


def sample(found: Tensor, ids: Sequence[int]) -> Tensor:
    """Return the logits of the last positions for the tokens of the row. Of a head with fewer labels, a label stands for a token."""
    columns = sorted({token % found.shape[1] for token in ids})
    return found[-POSITIONS:, columns].flatten()
