"""The hints of failures: who can follow them, and what it takes."""

from __future__ import annotations

import re

import pytest

from tests.unit.operator.plan.world import (
    ended,
    eval_job,
    fine_tune_job,
    inference_service,
)
from tunesmith_api.failures import FailureClass
from tunesmith_operator.plan.failures.hints import POLICIES, RECREATE
from tunesmith_operator.plan.failures.last_failure import failure
from tunesmith_operator.plan.failures.termination import termination_failure
from tunesmith_operator.plan.names import KIND_LABEL


def test_a_job_is_to_be_created_again_and_a_service_is_not() -> None:
    ends = {"resources": {"limits": {"memory": "4Gi"}}}
    hints = {}
    for thing, container in ((fine_tune_job(), "train"), (eval_job(), "serve"), (inference_service(), "serve")):
        kind = thing["kind"]
        made = {
            "metadata": {"name": "p", "labels": {KIND_LABEL: kind}},
            "spec": {"containers": [{"name": container, **ends}]},
            "status": {"containerStatuses": [{"name": container, "state": ended(137, reason="OOMKilled")}]},
        }
        hints[kind] = termination_failure(made).hint
    assert {kind for kind, hint in hints.items() if hint.endswith(RECREATE)} == {"FineTuneJob", "EvalJob"}
    assert {kind for kind, hint in hints.items() if "training" in hint} == {"FineTuneJob"}
    assert {kind for kind, hint in hints.items() if "spec.maxModelLength" in hint} == {"InferenceService"}


@pytest.mark.parametrize("class_", sorted(set(FailureClass) - {FailureClass.DEADLINE_EXCEEDED}))
def test_a_hint_for_a_service_does_not_mention_jobs(class_: FailureClass) -> None:
    """Its spec can be changed, and it has no deadline."""
    hint = failure(class_, "x", kind="InferenceService").hint
    assert RECREATE not in hint
    assert not re.search(r"\bjobs?\b|checkpoint|training", hint, re.IGNORECASE)


@pytest.mark.parametrize(("field", "policy"), sorted(POLICIES.items()))
def test_a_hint_names_the_policy_that_must_allow_it(field: str, policy: str) -> None:
    made = failure(FailureClass.POD_REFUSED, "x", f"set spec.{field} to y")
    assert f"(podPolicy.{policy} in the chart's values must allow it)" in made.hint
