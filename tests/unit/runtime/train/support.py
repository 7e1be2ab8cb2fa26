"""A work directory as fetch leaves it, with the tiny model and its task, and a store of local files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import tinymodel
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.hashing import spec_hash
from tunesmith_api.run import ModelRole, Outcome, ProgressReport, ResolvedModel, RunReport, RunSpec, Store
from tunesmith_api.run_spec import run_id
from tunesmith_runtime import train
from tunesmith_runtime.progress_push import ProgressPusher
from tunesmith_runtime.rundirectory import RunDirectory, open_run
from tunesmith_runtime.storage import open_storage
from tunesmith_runtime.workdir import DataFile, Fetched, Work

ROOT = Path(__file__).parents[4]
QUICK: dict[str, Any] = {"learningRate": 3e-3, "globalBatchSize": 16, "epochs": 4, "maxLength": 64, "precision": "fp32"}
"""Settings with which the tiny model learns its task in seconds, and alike on machines with and without bfloat16."""


@dataclass(frozen=True)
class Run:
    """A run of a FineTuneJob: its spec and its work directory."""

    spec: RunSpec
    work: Work

    @property
    def directory(self) -> RunDirectory:
        """The run's folder in the store."""
        return open_run(self.spec, self.work, open_storage(self.spec.store))

    def do(self, verb: Callable[[RunSpec, Work, ProgressPusher], RunReport]) -> RunReport:
        """Run a verb in this process."""
        return verb(self.spec, self.work, ProgressPusher(None, None))

    def start(self, verb: str, **environment: str) -> subprocess.Popen[str]:
        """Start a verb in its own process, as a container does."""
        spec_file = self.work.root / "run-spec.json"
        spec_file.write_text(json.dumps(self.spec.to_dict()))
        return subprocess.Popen(
            [sys.executable, "-m", "tunesmith_runtime", verb, "--spec", str(spec_file), "--work", str(self.work.root)],
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'crds'}:{ROOT / 'runtime'}", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def log_history(self, metric: str = "loss") -> list[dict[str, Any]]:
        """Return the entries of logs/metrics.jsonl that have a metric, such as the training loss."""
        content = self.directory.storage.read_bytes(f"{self.directory.uri}/logs/metrics.jsonl")
        assert content is not None
        return [entry for entry in map(json.loads, content.splitlines()) if metric in entry]


def make_run(
    folder: Path,
    model: Path,
    rows: list[dict[str, Any]],
    training: Mapping[str, Any] | None = None,
    initial: Path | None = None,
    **spec: Any,
) -> Run:
    """Return a run on `model` and `rows` that fetch has prepared, which goes on with the adapter in `initial`."""
    spec_data = {
        "model": {"uri": "s3://models/tiny"},
        "datasets": [{"uri": "s3://data/train.jsonl"}],
        "training": QUICK | dict(training or {}),
        **spec,
    }
    full = FineTuneJobSpec.model_validate(spec_data).to_dict()
    store = f"file://{folder}/store"
    run_spec = RunSpec(
        kind="FineTuneJob", name="tiny", namespace="default", uid="u", spec=full, spec_hash=spec_hash("FineTuneJob", full),
        store=Store(uri=store), models={ModelRole.BASE: ResolvedModel(uri="s3://models/tiny")}, output_uri=f"{store}/runs",
    )  # fmt: skip
    return Run(run_spec, fetched(folder / "work", run_spec, model, rows, initial))


def fetched(root: Path, spec: RunSpec, model: Path, rows: list[dict[str, Any]], initial: Path | None = None) -> Work:
    """Return a work directory as fetch leaves it. Each attempt has its own."""
    work = Work(root)
    root.mkdir(parents=True)
    work.model().symlink_to(model)
    if initial:
        work.model(ModelRole.INITIAL).symlink_to(initial)
    tinymodel.write_rows(work.data / "00.jsonl", rows)
    work.write_data_files([DataFile(path="00.jsonl", uri="s3://data/train.jsonl", dataset=0)])
    run = run_id(spec, {"s3://data/train.jsonl": "1"})
    uri = f"{spec.output_uri}/{run}"
    work.write_fetched(
        Fetched(run_id=run, run_uri=uri, fingerprints={"s3://data/train.jsonl": "1"}, model_uri="s3://models/tiny")
    )
    return work


def again(run: Run, model: Path, rows: list[dict[str, Any]], attempt: int) -> Run:
    """Return the same run in the pod of a further attempt."""
    root = run.work.root.with_name(f"work-{attempt}")
    link = run.work.model(ModelRole.INITIAL)
    return Run(run.spec, fetched(root, run.spec, model, rows, link.resolve() if link.exists() else None))


@contextmanager
def stop_after(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProgressPusher]:
    """Yield a pusher that sends SIGTERM to this process when it reports `step`."""

    class Stopping(ProgressPusher):
        def push(self, report: ProgressReport) -> None:
            if report.step == step:
                os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("tunesmith_runtime.train.reporting.SECONDS_BETWEEN_REPORTS", 0.0)
    yield Stopping(None, None)


def stop_and_resume(
    run: Run,
    model: Path,
    rows: list[dict[str, Any]],
    step: int,
    monkeypatch: pytest.MonkeyPatch,
    prepare: Callable[[Run], Run] = lambda resumed: resumed,
) -> tuple[Run, RunReport]:
    """Stop the training by SIGTERM when it reports `step`, and resume it in another pod, which `prepare` has completed.

    Return that run and its report.
    """
    with stop_after(step, monkeypatch) as pusher:
        assert train.run(run.spec, run.work, pusher).outcome is Outcome.PREEMPTED
    resumed = prepare(again(run, model, rows, 2))
    return resumed, resumed.do(train.run)


def terminate_when(process: subprocess.Popen[str], text: str, patience: float = 300.0) -> str:
    """Send SIGTERM when the process has printed `text`; return its whole output."""
    printed, deadline = [], time.monotonic() + patience
    assert process.stdout is not None
    for line in process.stdout:
        printed.append(line)
        if text in line:
            process.send_signal(signal.SIGTERM)
            break
        assert time.monotonic() < deadline, "".join(printed)
    rest, _ = process.communicate(timeout=patience)
    return "".join(printed) + rest


def without_small_numbers(model: Path, folder: Path, dtype: Any) -> Path:
    """Save the model with weights of at least 0.01, beside which 16 bits round a small update away."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made = AutoModelForCausalLM.from_pretrained(model)
    for weight in made.parameters():
        weight.data = torch.where(weight < 0, weight.clamp(max=-0.01), weight.clamp(min=0.01))
    made.to(dtype).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return folder
