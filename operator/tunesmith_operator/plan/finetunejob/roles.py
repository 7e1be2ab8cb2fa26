"""The one role of a FineTuneJob: tuning."""

from __future__ import annotations

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_operator.plan.jobs.attempts import Role

KIND = "FineTuneJob"


def tuning(spec: FineTuneJobSpec) -> Role:
    """The role, with as many pods as the spec has nodes; a job that ends before training has one pod without devices."""
    trains = spec.until.trains
    return Role(
        label="tune", preparation_label="prepare", pods=spec.parallelism.nodes if trains else 1, holds_devices=trains
    )
