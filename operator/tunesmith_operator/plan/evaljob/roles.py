"""The two roles of an EvalJob: scoring the model, and scoring the baseline."""

from __future__ import annotations

from tunesmith_operator.plan.jobs.attempts import Role

KIND = "EvalJob"
MODEL = Role(label="eval-model", preparation_label="prepare-model", status_name="model")
BASELINE = Role(label="eval-baseline", preparation_label="prepare-base", status_name="baseline")
"""`status_name` is the field of spec and of status. The labels are short because names of Jobs are limited."""
