"""`python -m tests.bench.estimate [NAME...]`: estimated beside measured peak memory of trainings on a CPU, as a table.

Memory beyond that of a process without a model. Beside it what accelerate and training_hub say (peers.py). Exits with 1 if an error is above LIMIT.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.bench.estimate.cases import BASELINE, CASES
from tests.bench.estimate.measure import measure
from tests.bench.estimate.peers import accelerate_bytes, training_hub_bytes
from tunesmith_runtime.estimate.memory import MIB

LIMIT = 0.15


def main(names: list[str]) -> int:
    """Measure the cases, print the table, and return the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        runtime = measure(BASELINE, Path(folder, "baseline")).measured
        print(f"process without a model: {runtime / MIB:.0f} MiB\n")
        print("| training | parameters | estimated MiB | measured MiB | error | accelerate MiB | training_hub MiB |")
        print("|---|---|---|---|---|---|---|")
        worst = 0.0
        for number, case in enumerate(each for each in CASES if not names or each.name in names):
            outcome = measure(case, Path(folder, str(number)))
            measured, estimated = outcome.measured - runtime, outcome.memory.beyond_runtime
            error = estimated / measured - 1
            worst = max(worst, abs(error))
            print(
                f"| {case.name} | {outcome.architecture.parameters / 1e6:.1f} M | {estimated / MIB:.0f} | {measured / MIB:.0f} "
                f"| {100 * error:+.0f} % | {accelerate_bytes(outcome.architecture) / MIB:.0f} "
                f"| {training_hub_bytes(case, outcome.architecture) / MIB:.0f} |",
                flush=True,
            )
    print(f"\nlargest error: {100 * worst:.0f} %")
    return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
