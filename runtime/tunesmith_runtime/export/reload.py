"""Compares the published adapter or model, loaded as others load it, with the model that was trained."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.status import ArtifactType
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.export.merge import loaded_with
from tunesmith_runtime.modelcheck.loading import with_adapter
from tunesmith_runtime.tasks import task_of
from tunesmith_runtime.train.models.files import load_model, stored_dtype
from tunesmith_runtime.train.models.logits import row_logits, sample
from tunesmith_runtime.train.training_result import TrainedLogits
from tunesmith_runtime.train.tuners import TUNERS, Tuner

log = logging.getLogger(__name__)

TOLERANCE = 1e-3
"""Maximum difference of a float32 logit between the trained model and the reloaded one, relative to the largest logit. Rounding on
another device changes it by about 1e-5."""
ROUNDED_TOLERANCE = 5e-2
"""The same where either of them computes in 16 bits, is stored in them, or has a quantized base."""


def check_for(trained: TrainedLogits | None, tuner: Tuner, base: Path) -> Callable[[Any], None]:
    """Return the function that compares a reloaded model with the trained one; it accepts any model if nothing was recorded."""
    if trained is None:
        return lambda model: None
    is_stored_rounded = tuner.artifact is ArtifactType.MODEL and stored_dtype(base) is not torch.float32
    is_rounded = trained.bf16 or tuner.quantizes_base or is_stored_rounded
    return partial(check_reloaded, trained=trained, tolerance=ROUNDED_TOLERANCE if is_rounded else TOLERANCE)


def check_artifact(
    job: FineTuneJobSpec, trained: TrainedLogits, base: Path, folder: Path, trust_remote_code: bool
) -> None:
    """Load the model, or the base with the adapter, in `folder` in the number format of the training, and compare it with the trained model.

    Raises RunFailure (BadModel, ReloadMismatch).
    """
    tuner, task = TUNERS[job.tuner], task_of(job.method)
    with torch.autocast("cpu", torch.bfloat16, enabled=trained.bf16):
        if tuner.artifact is ArtifactType.MODEL:
            model: Any = load_model(folder, trust_remote_code, task, dtype=torch.float32)
        else:
            compute = torch.bfloat16 if trained.bf16 else torch.float32
            options = {**tuner.load_options(job, compute, "cpu"), **loaded_with(folder, task, trust_remote_code)}
            model = with_adapter(load_model(base, trust_remote_code, **options), "default", folder)
        check_for(trained, tuner, base)(model)


def check_reloaded(model: Any, trained: TrainedLogits, tolerance: float) -> None:
    """Compare the logits of a reloaded model with those of the trained one.

    Raises RunFailure (ReloadMismatch) if the largest difference, relative to the largest logit, is above `tolerance`.
    """
    difference = max(
        float((sample(row_logits(model, ids), ids).cpu() - torch.tensor(values)).abs().max()) / largest
        for ids, values, largest in zip(trained.rows, trained.values, trained.largest, strict=True)
    )
    log.info("reloaded: logits differ from those of the trained model by %.1e (%.0e is allowed)", difference, tolerance)
    if not difference <= tolerance:  # NaN is a mismatch as well
        raise RunFailure(
            FailureClass.RELOAD_MISMATCH,
            f"the saved weights do not reload as they were trained: the logits differ by {difference:.1e} of the largest, more than {tolerance:.0e}",
        )
