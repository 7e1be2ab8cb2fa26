"""Prompt tuning (Lester et al., 2021, https://arxiv.org/abs/2104.08691): the base is frozen, and trained embeddings of virtual tokens
stand before each row. The virtual tokens have no labels and no text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.status import ArtifactType
from tunesmith_api.tuners import Tuner as TunerName
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.tasks import task_of
from tunesmith_runtime.train.tuners.adapter import load_options, record_trained
from tunesmith_runtime.train.tuners.base import Tuner

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def check(model: PreTrainedModel, job: FineTuneJobSpec, tokens: Sequence[int] = ()) -> None:
    """Refuse more virtual tokens than `model` has positions, and a model whose inputs PEFT does not find. Adapts `model`."""
    from tunesmith_runtime.modelcheck.config import positions

    count, most = job.virtual_tokens, positions(model.config)
    if most is not None and count >= most:
        raise RunFailure(
            FailureClass.BAD_SPEC,
            f"prompt.tokens is {count}, and the model has {most} positions for virtual tokens and row",
            f"set spec.prompt.tokens to {most // 2} or less",
        )
    apply(model, job, None, tokens)


def apply(
    model: PreTrainedModel, job: FineTuneJobSpec, initial: Path | None = None, tokens: Sequence[int] = ()
) -> PeftModel:
    """Return `model` with virtual tokens in float32. They begin with the embeddings of `tokens`, or of tokens drawn by
    torch's seed.

    Raises RunFailure (BadSpec) for a model that PEFT refuses.
    """
    from peft import PromptTuningConfig, get_peft_model

    config = PromptTuningConfig(task_type=task_of(job.method).adapter_type, num_virtual_tokens=job.virtual_tokens)
    try:
        adapted = get_peft_model(model, config)
        begin_with(adapted, tokens)
    except (AttributeError, ValueError, RuntimeError) as error:
        # Sizes that config.json does not name, or others than those of embeddings.
        sentence = f"virtual tokens cannot be put before the rows of this model: {error}"
        raise RunFailure(FailureClass.BAD_SPEC, sentence, f"set spec.tuner: {TunerName.LORA}") from error
    return adapted


def begin_with(model: Any, tokens: Sequence[int]) -> None:
    """Give the virtual tokens of `model` the embeddings of `tokens`, repeated or cut to their number; without `tokens`,
    those of random tokens."""
    import torch

    virtual, table = model.prompt_encoder["default"].embedding.weight, model.get_input_embeddings()
    count = len(virtual)
    ids = [*tokens] * -(-count // len(tokens)) if tokens else torch.randint(len(table.weight), (count,)).tolist()
    with torch.no_grad():
        virtual.copy_(table(torch.tensor(ids[:count], device=table.weight.device)))


PROMPT = Tuner(
    TunerName.PROMPT,
    artifact=ArtifactType.ADAPTER,
    load_options=load_options,
    check=check,
    apply=apply,
    record_weights=record_trained,
)
