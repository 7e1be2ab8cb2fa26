"""Checks the parts of a model that a job names (`lora.targetModules`, `training.freeze` and the like) before devices are requested."""

from __future__ import annotations

import logging
from pathlib import Path

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.method_facts import METHOD_FACTS
from tunesmith_api.run import RunSpec
from tunesmith_api.tuners import Lora
from tunesmith_runtime.errors import RunFailure

log = logging.getLogger(__name__)


def names_modules(job: FineTuneJobSpec) -> bool:
    """Return whether a job has settings that must fit the parts of its model."""
    lora = job.lora or Lora()
    named = (lora.target_modules, lora.target_pattern, lora.modules_to_save, lora.trainable_tokens)
    parts = (*named, job.training.freeze, job.prompt)
    return lora.init.is_computed or any(each is not None for each in parts)


def check_named_modules(spec: RunSpec, job: FineTuneJobSpec, folder: Path) -> None:
    """Compare these settings with the architecture and the tokenizer in `folder`. Imports torch.

    Settings that need code of the model, an adapter of lora.from or a new head are checked when the model is loaded.
    Raises RunFailure (BadSpec).
    """
    if (
        not names_modules(job)
        or spec.base.trust_remote_code
        or job.initial_adapter
        or not METHOD_FACTS[job.method].writes_text
    ):
        return
    from tunesmith_runtime.multimodal.processor import PACKAGES
    from tunesmith_runtime.train.imports import hidden
    from tunesmith_runtime.train.tuners import TUNERS

    with hidden(PACKAGES):
        from tunesmith_runtime.train.models.files import load_tokenizer
        from tunesmith_runtime.train.models.trainable import check_fit

        try:
            check_fit(folder, job, TUNERS[job.tuner], load_tokenizer(folder))
        except RunFailure:
            raise
        except Exception as error:  # noqa: BLE001  # config classes raise errors of any type
            log.info("the parts that the job names are checked where the model is loaded: %s", error)
