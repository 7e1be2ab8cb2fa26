"""Loads the model to train: the base of a run, with the head of its method and its tuner applied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, set_seed

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.run import ModelRole, RunSpec
from tunesmith_runtime.tasks import LANGUAGE, task_of
from tunesmith_runtime.train.head import config_with_head
from tunesmith_runtime.train.model import load_model
from tunesmith_runtime.train.targets import skeleton
from tunesmith_runtime.train.tuners import Tuner
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
) -> Any:
    """Load the base, and return the model to train: with the tuner applied, by the seed of the run.

    Names and shapes show whether the tuner fits the model, before its weights are read; fetch has checked an adapter that the
    training goes on with. The number format of a base that is only read follows from `compute`, that of the computation;
    weights that are trained are in float32. `head`: settings of the head of a model that is no language model, whose weights
    follow the seed too.
    """
    initial = work.model(ModelRole.INITIAL) if job.initial_adapter else None
    folder, trusted, task = work.model(), spec.base.trust_remote_code, task_of(job.method)
    config = None if task is LANGUAGE else config_with_head(folder, tokenizer, head, trusted)
    if initial is None:
        tuner.check(skeleton(folder, trusted, task, config), job)
    with_head = {} if config is None else {"config": config}
    set_seed(job.training.seed)
    base = load_model(folder, trusted, task, **with_head, **tuner.load_options(job, compute, device))
    set_seed(job.training.seed)
    return tuner.apply(base, job, initial)
