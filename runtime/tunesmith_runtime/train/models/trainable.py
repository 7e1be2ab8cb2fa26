"""Loads the model to train: the base of a run, with the head of its method and its tuner applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedTokenizerBase, set_seed

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.run import ModelRole, RunSpec
from tunesmith_runtime.tasks import LANGUAGE, task_of
from tunesmith_runtime.train.models.files import load_model
from tunesmith_runtime.train.models.head import config_with_head
from tunesmith_runtime.train.tuners import Tuner
from tunesmith_runtime.train.tuners.saved_modules import token_ids
from tunesmith_runtime.train.tuners.targets import skeleton
from tunesmith_runtime.workdir import Work


def load_trainable(
    spec: RunSpec,
    job: FineTuneJobSpec,
    tuner: Tuner,
    work: Work,
    compute: torch.dtype,
    device: str,
    tokenizer: PreTrainedTokenizerBase,
    head: Mapping[str, Any],
    attention: Mapping[str, Any],
) -> Any:
    """Load the base, and return the model to train: with the tuner applied, by the seed of the run.

    Names and shapes show whether the tuner fits the model, before its weights are read; fetch has checked an adapter
    from which the training continues. The number format of a frozen base follows from `compute`, the format of the
    computation; weights that are trained are in float32. `head`: settings of the head of a model that is not a language
    model. The seed decides its weights too. `attention`: options of `from_pretrained`.
    """
    initial = work.model(ModelRole.INITIAL) if job.initial_adapter else None
    folder, trusted, task = work.model(), spec.base.trust_remote_code, task_of(job.method)
    config = None if task is LANGUAGE else config_with_head(folder, tokenizer, head, trusted)
    tokens = () if initial else check_fit(folder, job, tuner, tokenizer, trusted, config)
    with_head = {} if config is None else {"config": config}
    set_seed(job.training.seed)
    base = load_model(folder, trusted, task, **with_head, **attention, **tuner.load_options(job, compute, device))
    set_seed(job.training.seed)
    return tuner.apply(base, job, initial, tokens)


def check_fit(
    folder: Path,
    job: FineTuneJobSpec,
    tuner: Tuner,
    tokenizer: PreTrainedTokenizerBase,
    trusted: bool = False,
    config: PretrainedConfig | None = None,
) -> Sequence[int]:
    """Check that the tuner fits the architecture in `folder`, or in `config`; return the ids of the tokens that the job
    names.

    Raises RunFailure (BadSpec).
    """
    tokens = named_tokens(tokenizer, job)
    tuner.check(skeleton(folder, trusted, task_of(job.method), config), job, tokens)
    return tokens


def named_tokens(tokenizer: PreTrainedTokenizerBase, job: FineTuneJobSpec) -> Sequence[int]:
    """Return the ids of lora.trainableTokens, or those of prompt.text. Raises RunFailure (BadSpec)."""
    if job.prompt and job.prompt.text:
        return list(tokenizer(job.prompt.text, add_special_tokens=False)["input_ids"])
    return token_ids(tokenizer, (job.lora and job.lora.trainable_tokens) or ())
