"""Pure decisions: what a resource needs, from what is there. No I/O, no clock, no randomness."""

from __future__ import annotations

from tunesmith_operator.plan.evaljob.plan import EVAL_JOB
from tunesmith_operator.plan.finetunejob.plan import FINE_TUNE_JOB
from tunesmith_operator.plan.inferenceservice.plan import INFERENCE_SERVICE
from tunesmith_operator.plan.types import KindPlan

KINDS: dict[str, KindPlan] = {kind_plan.kind: kind_plan for kind_plan in (FINE_TUNE_JOB, EVAL_JOB, INFERENCE_SERVICE)}
"""What the operator knows how to run, by kind."""

__all__ = ["KINDS"]
