"""Runs that are stopped and killed at random steps, 20 times in a row, end bit for bit as undisturbed runs do (CPU)."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import tinymodel
from tests.unit.runtime.train.methods.preferences import feedback, preferences
from tests.unit.runtime.train.methods.samples import GROUPS, PROMPTS, VOWEL
from tests.unit.runtime.train.support import Run, again, make_run
from tests.unit.runtime.train.worlds import Forked
from tunesmith_api.failures import FAILURES, FailureClass
from tunesmith_api.run import RunReport

OF_EACH = 10
"""Disturbances by each signal."""
STEPS = 40
PATIENCE = 1200.0
ENDS = {signal.SIGTERM: FAILURES[FailureClass.PREEMPTED].exit_code, signal.SIGKILL: -signal.SIGKILL}
"""The exit code after each signal."""
METRICS = {"loss", "grad_norm", "reward", "kl", "value_loss", "rewards/margins"}
TEXTS = tinymodel.rows(90, seed=1)
TRAINING: dict[str, Any] = {"maxSteps": STEPS, "globalBatchSize": 8, "microBatchSize": 4}
PACKED: dict[str, Any] = {"packing": True, "globalBatchSize": 2, "microBatchSize": 1}
CASES: dict[str, tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]] = {
    "sft": (TEXTS, {}, {}),
    "sft packed": (TEXTS, PACKED, {}),
    "sft streaming": (TEXTS, {"streaming": True, "epochs": None}, {}),
    "dpo": (preferences(90), {}, {"method": "dpo"}),
    "kto": (feedback(90), {}, {"method": "kto"}),
    "grpo": (PROMPTS, {}, {"method": "grpo", "grpo": {**GROUPS, "stepsPerRollout": 4}, "rewards": [VOWEL]}),
    "ppo": (PROMPTS, {}, {"method": "ppo", "ppo": {"maxCompletionLength": 8}, "rewards": [VOWEL]}),
}
"""Rows, settings of the training, and further fields of the spec."""


@dataclass(frozen=True)
class Disturbance:
    """A signal that a process sends itself a moment after a step has begun: a patch of its code."""

    number: signal.Signals
    step: int
    seconds: float

    def __call__(self) -> None:
        from tunesmith_runtime.train.reporting import ProgressReporter

        sent: list[threading.Timer] = []

        def on_step_begin(_: Any, args: Any, state: Any, control: Any, **others: Any) -> None:
            if state.global_step >= self.step and not sent:
                sent.append(threading.Timer(self.seconds, os.kill, (os.getpid(), self.number)))
                sent[0].start()

        ProgressReporter.on_step_begin = on_step_begin


def disturbances(seed: int) -> Iterator[Disturbance]:
    """As many of each signal, in random order, at random steps and moments."""
    choose = random.Random(seed)
    signals = [number for number in ENDS for _ in range(OF_EACH)]
    choose.shuffle(signals)
    for number, step in zip(signals, sorted(choose.sample(range(1, STEPS - 4), len(signals))), strict=True):
        yield Disturbance(number, step, choose.uniform(0, 0.1))


def train(run: Run, disturbance: Disturbance | None = None) -> str:
    """Train in a process that ends by a signal; return its output."""
    process = Forked(run, "train", {}, disturbance)
    printed, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == (ENDS[disturbance.number] if disturbance else 0), printed
    return printed


def digests(printed: str) -> list[str | None]:
    """The artifacts of a report, the last line of what was printed."""
    return [artifact.digest for artifact in RunReport.model_validate_json(printed.splitlines()[-1]).artifacts or []]


def course(run: Run) -> list[dict[str, Any]]:
    """The logged values of each step that do not depend on the time."""
    return [{name: entry[name] for name in entry.keys() & (METRICS | {"step"})} for entry in run.log_history()]


@pytest.mark.deep
@pytest.mark.parametrize("case", CASES)
def test_a_run_stopped_and_killed_at_random_steps_ends_as_an_undisturbed_one(
    case: str, tiny: Path, tmp_path: Path
) -> None:
    rows, training, spec = CASES[case]
    spec = {"lora": {"dropout": 0.1}, "checkpoint": {"everySteps": 3, "keep": 2}, **spec}
    whole = make_run(tmp_path / "whole", tiny, rows, TRAINING | training, **spec)
    expected = digests(train(whole))
    run = make_run(tmp_path / "disturbed", tiny, rows, TRAINING | training, **spec)
    seed = int(os.environ.get("TUNESMITH_SEED") or random.randrange(10**6))
    print(f"TUNESMITH_SEED={seed}")
    for attempt, disturbance in enumerate(disturbances(seed), start=2):
        train(run, disturbance)
        run = again(run, tiny, rows, attempt)
    assert digests(train(run)) == expected
    assert expected
    assert course(run) == course(whole)
    assert len(course(run)) == STEPS
