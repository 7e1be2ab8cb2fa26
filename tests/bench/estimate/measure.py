"""Measures the peak memory of a training in a process of its own, and estimates it before."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.estimate.cases import Case
from tests.bench.estimate.training import peak_of_training, write_model
from tests.unit.runtime.train.support import Run, make_run
from tunesmith_api.run import ModelRole
from tunesmith_runtime.estimate.architecture import Architecture
from tunesmith_runtime.estimate.memory import Memory, peak
from tunesmith_runtime.estimate.setup import setup_of
from tunesmith_runtime.fetch.encoded_rows import count_encoded
from tunesmith_runtime.fetch.model_files import StoredFiles
from tunesmith_runtime.fetch.model_sizes import read_architecture
from tunesmith_runtime.fetch.row_count import encode_lightly
from tunesmith_runtime.storage import open_storage
from tunesmith_runtime.workdir import Work

FIXED = {"sft": {"completion": "1"}, "gkd": {"completion": "1"}, "dpo": {"chosen": "1", "rejected": "2"}}
"""Methods whose rows have answers -> column -> its character. The others sample completions of prompts alone."""


@dataclass(frozen=True)
class Outcome:
    """A case with its estimate, and the peak resident memory of its process."""

    case: Case
    memory: Memory
    architecture: Architecture
    measured: int


def rows_of(case: Case) -> list[dict[str, Any]]:
    """Return rows whose characters are one token each: of prompt and completion, or a prompt alone for a method that samples."""
    rows = []
    for index in range(3 * case.rows * case.accumulation):
        length = case.length // 2 if case.uneven and index % 2 else case.length
        answer = max(1, round(length * case.answers)) if case.method in FIXED else case.answer
        prompt = "0" * max(1, length - answer - 1)
        answers = {name: character * answer for name, character in FIXED.get(case.method, {}).items()}
        rows.append({"prompt": prompt, **answers})
    return rows


def measure(case: Case, folder: Path, processes: Executor) -> Outcome:
    """Train a case in `folder` and return its estimate and its peak. `processes` runs each task in a new process."""
    model = folder / "model"
    processes.submit(write_model, case, model).result()
    run = make_run(folder, model, rows_of(case), case.training, **case.blocks)
    if case.method == "gkd":
        run.work.model(ModelRole.TEACHER).symlink_to(model)
    memory, architecture = estimated(run, model, folder / "scratch")
    return Outcome(case, memory, architecture, processes.submit(peak_of_training, run).result())


def estimated(run: Run, model: Path, scratch: Path) -> tuple[Memory, Architecture]:
    """Estimate a run by the files of its model and its encoded rows, as the preparation pod does."""
    job = run.spec.fine_tune_job()
    work = Work(scratch)
    scratch.mkdir()
    work.model().symlink_to(model)
    (scratch / "data").symlink_to(run.work.data)
    architecture = read_architecture(StoredFiles(open_storage(run.spec.store), f"file://{model}"))
    workload = count_encoded(encode_lightly(job, work), job, packs=False)
    teacher = architecture if job.gkd else None
    return peak(setup_of(job, architecture, workload, teacher=teacher)), architecture
