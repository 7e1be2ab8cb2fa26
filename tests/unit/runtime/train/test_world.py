"""Two pods that train together are two processes here, with a work directory each, one store, and gloo between them."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import tinymodel
from tests.unit.runtime.train.support import Run, fetched, make_run
from tunesmith_api.failures import FAILURES, FailureClass
from tunesmith_api.run import INDEX_VARIABLE, Outcome, RunReport, World
from tunesmith_runtime import train

ROWS = tinymodel.rows(90, seed=1)
STEPS = 2 * 6  # the last batch of an epoch has ten rows
SETTINGS: dict[str, Any] = {"epochs": 2, "microBatchSize": 4, "precision": "fp32"}
DROPOUT: dict[str, Any] = {"tuner": "lora", "lora": {"dropout": 0.1}, "checkpoint": {"everySteps": 4}}
PATIENCE = 300


@dataclass
class Pods:
    """The pods of one attempt."""

    runs: list[Run]
    processes: list[subprocess.Popen[str]]

    def printed(self) -> list[str]:
        """What each has printed until its end."""
        return [process.communicate(timeout=PATIENCE)[0] for process in self.processes]

    def reports(self) -> list[RunReport]:
        """What each says at its end."""
        return [RunReport.model_validate_json(text.splitlines()[-1]) for text in self.printed()]

    def exit_codes(self) -> list[int]:
        """How each has ended."""
        return [process.wait(PATIENCE) for process in self.processes]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start(run: Run, model: Path, attempt: int, rows: list[dict[str, Any]] = ROWS) -> Pods:
    """Two new pods that train together, as an attempt at `run`."""
    spec = run.spec.model_copy(update={"world": World(nodes=2, port=free_port()), "attempt": attempt})
    works = [fetched(run.work.root.with_name(f"pod-{attempt}-{index}"), spec, model, rows) for index in (0, 1)]
    runs = [Run(spec, work) for work in works]
    environment = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return Pods(
        runs, [each.start("train", **{INDEX_VARIABLE: str(index)}, **environment) for index, each in enumerate(runs)]
    )


def wait_for(process: subprocess.Popen[str], seen: str) -> None:
    """Read what a process prints until it prints `seen`."""
    assert process.stdout is not None
    printed = []
    for line in process.stdout:
        printed.append(line)
        if seen in line:
            return
    raise AssertionError(f"{seen!r} was not printed: {''.join(printed)}")


def losses(run: Run) -> list[float]:
    return [entry["loss"] for entry in run.log_history()]


@pytest.mark.parametrize("tuner", ["full", "lora"])
def test_two_pods_compute_the_steps_of_one(tiny: Path, tmp_path: Path, tuner: str) -> None:
    alone = make_run(tmp_path / "one", tiny, ROWS, SETTINGS, tuner=tuner)
    expected = alone.do(train.run)
    together = make_run(tmp_path / "two", tiny, ROWS, SETTINGS, tuner=tuner)
    leader, other = start(together, tiny, 1).reports()
    assert losses(together) == pytest.approx(losses(alone), abs=2e-5)
    assert leader.metrics
    assert expected.metrics
    assert (leader.metrics.steps, leader.metrics.tokens) == (STEPS, expected.metrics.tokens)
    assert leader.artifacts
    assert other == RunReport(verb=other.verb, outcome=Outcome.SUCCEEDED, run_uri=together.directory.uri)
