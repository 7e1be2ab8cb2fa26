"""`python -m tests.bench.estimate [NAME...]`: estimated beside measured peak memory of trainings on a CPU, as a table.

Memory is that beyond a process without a model. Beside it are the estimates of accelerate and training_hub (peers.py). Exits with 1
if an error is above LIMIT.
"""

from __future__ import annotations

import multiprocessing
import shutil
import sys
import tempfile
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path

from tests.bench.estimate.cases import BASELINE, CASES, Case
from tests.bench.estimate.measure import Outcome, measure
from tests.bench.estimate.peers import accelerate_bytes, training_hub_bytes
from tunesmith_runtime.estimate.memory import MIB

LIMIT = 0.15
PRELOAD = "tests.bench.estimate.preload"
COLUMNS = ("training", "parameters", "estimated MiB", "measured MiB", "error", "accelerate MiB", "training_hub MiB")


def main(names: list[str]) -> int:
    """Measure the cases, print the table, and return the exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOAD])
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as processes:
        runtime = in_folder(BASELINE, processes).measured
        print(f"process without a model: {runtime / MIB:.0f} MiB\n")
        print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|", flush=True)
        errors = []
        for case in (each for each in CASES if not names or each.name in names):
            outcome = in_folder(case, processes)
            accelerate = processes.submit(accelerate_bytes, outcome.architecture).result()
            errors.append(outcome.memory.beyond_runtime / (outcome.measured - runtime) - 1)
            print(row(outcome, runtime, errors[-1], accelerate), flush=True)
    worst = max(map(abs, errors), default=0.0)
    print(f"\nlargest error: {100 * worst:.0f} %")
    return int(worst > LIMIT)


def in_folder(case: Case, processes: Executor) -> Outcome:
    """Measure a case in a temporary folder: the models together are large."""
    folder = tempfile.mkdtemp()
    try:
        return measure(case, Path(folder), processes)
    finally:
        shutil.rmtree(folder)


def row(outcome: Outcome, runtime: int, error: float, accelerate: int) -> str:
    """The line of the table for a case."""
    sizes = outcome.memory.beyond_runtime, outcome.measured - runtime
    estimated, measured = (f"{size / MIB:.0f}" for size in sizes)
    peers = accelerate, training_hub_bytes(outcome.case, outcome.architecture)
    parameters = f"{outcome.architecture.parameters / 1e6:.1f} M"
    others = (f"{size / MIB:.0f}" for size in peers)
    cells = (outcome.case.name, parameters, estimated, measured, f"{100 * error:+.0f} %", *others)
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
