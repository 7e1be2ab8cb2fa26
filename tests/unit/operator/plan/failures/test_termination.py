"""Why a pod or a container failed."""

from __future__ import annotations

import pytest

from tests.unit.operator.plan.failures.pods import disrupted, pod
from tests.unit.operator.plan.world import (
    TUNED,
    ended,
    eval_job,
    failed_report,
    fine_tune_job,
    report,
    waiting,
)
from tunesmith_api.failures import FAILURES, FailureClass
from tunesmith_operator.plan.failures.termination import crash_failure, permanent_failure, termination_failure
from tunesmith_operator.plan.types import Raw

FETCHED = {"fetch": TUNED["fetch"]}


ENDINGS: dict[str, tuple[Raw, FailureClass, str]] = {
    "the trainer exceeds its memory limit": (
        pod(states={**FETCHED, "train": ended(137, reason="OOMKilled")}),
        FailureClass.OOM_KILLED,
        "used more than its memory limit of 4Gi",
    ),
    "an init container exceeds its memory limit": (
        pod(states={"fetch": ended(137, reason="OOMKilled")}),
        FailureClass.OOM_KILLED,
        "container fetch",
    ),
    "a process is killed for an unknown reason": (
        pod(states={**FETCHED, "train": ended(137)}),
        FailureClass.PROCESS_ERROR,
        "may have run out of memory",
    ),
    "a report names the row": (
        pod(states={**FETCHED, "train": ended(65, failed_report("train", "BadRow", "train.jsonl line 17"))}),
        FailureClass.BAD_ROW,
        "line 17",
    ),
    "a report is the last line of the log": (
        pod(states={"fetch": ended(77, "Traceback\n" + failed_report("fetch", "Storage403", "s3://data: denied"))}),
        FailureClass.STORAGE_403,
        "s3://data: denied",
    ),
    "a truncated report leaves the exit code": (
        pod(states={"fetch": ended(68, failed_report("fetch", "ModelNotFound", "x" * 5000)[:4096])}),
        FailureClass.MODEL_NOT_FOUND,
        "exited with code 68",
    ),
    "Python exits with a traceback": (
        pod(states={**FETCHED, "train": ended(1, "Traceback (most recent call last):\nValueError: no such layer")}),
        FailureClass.PROCESS_ERROR,
        "ValueError: no such layer",
    ),
    "a segmentation fault": (
        pod(states={**FETCHED, "train": ended(139)}),
        FailureClass.PROCESS_ERROR,
        "exited with code 139",
    ),
    "the memory of the device is full": (
        pod(states={**FETCHED, "train": ended(71)}),
        FailureClass.DEVICE_OUT_OF_MEMORY,
        "exited with code 71",
    ),
    "the runtime saves its state and stops": (
        pod(states={**FETCHED, "train": ended(75, report("train", "Preempted"))}),
        FailureClass.PREEMPTED,
        "exited with code 75",
    ),
    "a process is stopped": (
        pod(states={**FETCHED, "train": ended(143)}),
        FailureClass.PREEMPTED,
        "stopped by a signal",
    ),
    "the container cannot start": (
        pod(states={"fetch": ended(128, 'exec: "python": not found', "StartError")}),
        FailureClass.POD_START,
        'exec: "python": not found',
    ),
    "the node lost track of the container": (
        pod(states={"fetch": ended(137, reason="ContainerStatusUnknown")}),
        FailureClass.NODE_LOST,
        "lost track",
    ),
    "the cause is unknown": (pod(), FailureClass.PROCESS_ERROR, "the cause is unknown"),
}


@pytest.mark.parametrize("case", ENDINGS)
def test_the_cause_of_every_ending_is_found(case):
    thing, class_, words = ENDINGS[case]
    failure = termination_failure(thing)
    assert failure.class_ is class_
    assert words in failure.message
    assert failure.hint


def test_the_message_and_hint_of_a_report_are_kept():
    message = failed_report("train", "BadRow", "line 3", hint="give it messages", logTail="the log")
    failure = termination_failure(pod(states={**FETCHED, "train": ended(65, message)}))
    assert (failure.hint, failure.log_tail, failure.container, failure.exit_code) == (
        "give it messages",
        "the log",
        "train",
        65,
    )


def test_a_reported_cause_ranks_before_a_later_disruption():
    states = {**FETCHED, "train": ended(65, failed_report("train", "BadRow", "line 3"))}
    assert (
        termination_failure(pod(states=states, conditions=disrupted("EvictionByEvictionAPI"))).class_
        is FailureClass.BAD_ROW
    )


def test_the_log_tail_is_kept_if_there_is_no_report():
    failure = termination_failure(pod(states={**FETCHED, "train": ended(1, "a\nb\nc")}))
    assert failure.log_tail == "a\nb\nc"


def test_the_failure_of_the_engine_ranks_before_that_of_the_evaluator():
    states = {
        **FETCHED,
        "serve": {"state": waiting("CrashLoopBackOff"), "lastState": ended(137, reason="OOMKilled"), "restartCount": 1},
        "evaluate": ended(83, failed_report("evaluate", "EngineFailed", "the engine went away")),
    }
    failure = termination_failure(pod(states=states, thing=eval_job()))
    assert (failure.class_, failure.container) == (FailureClass.OOM_KILLED, "serve")


def test_a_stopped_sidecar_is_no_cause():
    states = {**FETCHED, "serve": ended(143), "evaluate": ended(84, "x\nno answers")}
    failure = termination_failure(pod(states=states, thing=eval_job()))
    assert (failure.class_, failure.container) == (FailureClass.EVALUATION_FAILED, "evaluate")


def looping(restarts: int, class_: FailureClass = FailureClass.ENGINE_FAILED) -> Raw:
    code = FAILURES[class_].exit_code or 1
    serve = {
        "state": waiting("CrashLoopBackOff", "back-off"),
        "lastState": ended(code, failed_report("serve", class_, "config.json: no such architecture")),
        "restartCount": restarts,
    }
    return pod("Pending", {**FETCHED, "serve": serve}, eval_job())


def test_an_engine_that_keeps_ending_fails_its_pod():
    assert permanent_failure(looping(2)) is None
    doomed = permanent_failure(looping(3))
    assert doomed
    assert (doomed.class_, doomed.message) == (FailureClass.ENGINE_FAILED, "config.json: no such architecture")


def test_an_engine_with_a_permanent_failure_fails_its_pod_after_one_restart():
    doomed = permanent_failure(looping(1, FailureClass.BAD_MODEL))
    assert doomed
    assert (doomed.class_, doomed.container) == (FailureClass.BAD_MODEL, "serve")


def test_an_engine_that_the_kubelet_keeps_stopping_is_not_preempted():
    stopped = {
        "state": waiting("CrashLoopBackOff"),
        "lastState": ended(75, report("serve", "Preempted", failure={"class": "Preempted", "message": "SIGTERM"})),
        "restartCount": 3,
    }
    doomed = permanent_failure(pod("Pending", {**FETCHED, "serve": stopped}, eval_job()))
    assert doomed
    assert doomed.class_ is FailureClass.ENGINE_FAILED


def test_a_crashing_container_is_reported_before_it_fails_the_pod():
    crashing = crash_failure(looping(1))
    assert crashing
    assert crashing.class_ is FailureClass.ENGINE_FAILED


@pytest.mark.parametrize(
    ("resources", "hint"),
    [
        ({"accelerator": "nvidia"}, "nodes whose devices have more memory"),
        ({"accelerator": "ascend"}, "nodes whose devices have more memory"),
        ({"accelerator": "cpu"}, "raise spec.resources.memory"),
    ],
)
def test_lack_of_memory_on_the_cpu_is_that_of_the_pod(resources: Raw, hint: str) -> None:
    thing = pod(states={**FETCHED, "train": ended(71)}, thing=fine_tune_job(resources=resources))
    assert hint in termination_failure(thing).hint
    assert ("devices" in termination_failure(thing).hint) is (resources["accelerator"] != "cpu")
