"""Measures the peak memory of a training in a process of its own, and estimates it before."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.estimate.cases import RANK, Case
from tests.bench.estimate.training import peak_of_training, write_model
from tests.unit.runtime.train.support import Run, make_run
from tunesmith_runtime.estimate.architecture import Architecture
from tunesmith_runtime.estimate.memory import Memory, peak
from tunesmith_runtime.estimate.setup import setup_of
from tunesmith_runtime.fetch.assessment import count_encoded, encode_lightly, read_architecture
from tunesmith_runtime.storage import open_storage
from tunesmith_runtime.workdir import Work


@dataclass(frozen=True)
class Outcome:
    """A case with its estimate, and the peak resident memory of its process."""

    case: Case
    memory: Memory
    architecture: Architecture
    measured: int


def rows_of(case: Case) -> list[dict[str, Any]]:
    """Return rows of prompt and completion, whose characters are one token each."""
    rows = []
    for index in range(3 * case.rows * case.accumulation):
        length = case.length // 2 if case.uneven and index % 2 else case.length
        answer = max(1, round(length * case.answers))
        rows.append({"prompt": "0" * (length - answer - 1), "completion": "1" * answer})
    return rows


def measure(case: Case, folder: Path, processes: Executor) -> Outcome:
    """Train a case in `folder` and return its estimate and its peak. `processes` runs each task in a new process."""
    model = folder / "model"
    processes.submit(write_model, case, model).result()
    tuner = {"tuner": case.tuner, **({"lora": {"rank": RANK}} if case.tuner == "lora" else {})}
    run = make_run(folder, model, rows_of(case), case.training, **tuner)
    memory, architecture = estimated(run, model, folder / "scratch")
    return Outcome(case, memory, architecture, processes.submit(peak_of_training, run).result())


def estimated(run: Run, model: Path, scratch: Path) -> tuple[Memory, Architecture]:
    """Estimate a run by the files of its model and its encoded rows, as the preparation pod does."""
    job = run.spec.fine_tune_job()
    work = Work(scratch)
    scratch.mkdir()
    work.model().symlink_to(model)
    (scratch / "data").symlink_to(run.work.data)
    architecture = read_architecture(open_storage(run.spec.store), f"file://{model}")
    workload = count_encoded(encode_lightly(job, work), job, packs=False)
    return peak(setup_of(job, architecture, workload)), architecture
