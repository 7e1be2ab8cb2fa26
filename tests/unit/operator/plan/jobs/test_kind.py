"""The context of a decision about a job: which attempts count as work, and which Jobs are to end with the job."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.unit.operator.plan.world import CONFIG, START, fine_tune_job, token
from tunesmith_operator.plan.finetunejob.plan import JOB
from tunesmith_operator.plan.jobs.attempts import Attempts, Role
from tunesmith_operator.plan.jobs.kind import JobContext
from tunesmith_operator.plan.jobs.state import State
from tunesmith_operator.plan.spec.validate import parse_spec
from tunesmith_operator.plan.types import Key, Observed, Raw

ROLE = Role("tune", "prepare")


def job(name: str) -> Raw:
    return {"kind": "Job", "metadata": {"name": name}}


def attempts(label: str, number: int, state: State, **fields: Any) -> Attempts:
    jobs = tuple(job(f"support-{label}-{each}") for each in range(1, number + 1))
    return Attempts(ROLE, label, number, 0, state, jobs=jobs, job=jobs[-1] if jobs else None, **fields)


def context(*current: Attempts, others: tuple[Attempts, ...] = ()) -> JobContext[Any]:
    resource = fine_tune_job()
    spec: Any = parse_spec(JOB.spec_type, resource)
    return JobContext(JOB, resource, spec, current, others, Observed(), START, CONFIG, token)


WORK = attempts("tune", 2, State.RUNNING)
PREPARATION = attempts("prepare", 1, State.SUCCEEDED)


def test_a_preparation_is_no_work_and_work_that_was_never_attempted_is_not_counted() -> None:
    assert context(WORK, others=(PREPARATION,)).work == [WORK]
    assert context(PREPARATION, others=(attempts("tune", 0, State.NONE),)).work == []
    assert context(PREPARATION, others=(WORK,)).work == [WORK]


def test_a_job_that_has_succeeded_is_not_unfinished_but_an_earlier_one_of_its_role_is() -> None:
    assert context(WORK).unfinished == (Key("Job", "support-tune-1"), Key("Job", "support-tune-2"))
    assert context(replace(WORK, state=State.SUCCEEDED)).unfinished == (Key("Job", "support-tune-1"),)


def test_a_job_has_succeeded_when_every_role_has() -> None:
    succeeded = replace(WORK, state=State.SUCCEEDED)
    assert context(succeeded, succeeded).has_succeeded()
    assert not context(succeeded, WORK).has_succeeded()


def test_pods_of_all_attempts_are_awaited() -> None:
    stopping = replace(WORK, stopping=("support-tune-1-x",))
    assert context(stopping, others=(replace(PREPARATION, stopping=("support-prepare-1-x",)),)).stopping == [
        "support-tune-1-x",
        "support-prepare-1-x",
    ]
