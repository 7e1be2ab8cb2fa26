"""Measures the peak memory of a training in a process of its own, and estimates it before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.estimate.cases import Case
from tests.unit.runtime.train.support import ROOT, Run, make_run
from tunesmith_runtime.estimate.architecture import Architecture
from tunesmith_runtime.estimate.memory import Memory, peak
from tunesmith_runtime.estimate.setup import setup_of
from tunesmith_runtime.fetch.assessment import count_encoded, encode_lightly, read_architecture
from tunesmith_runtime.storage import open_storage
from tunesmith_runtime.workdir import Work

KIB = 1024


@dataclass(frozen=True)
class Outcome:
    """A case with its estimate, and the peak resident memory of its process."""

    case: Case
    memory: Memory
    architecture: Architecture
    measured: int


def model_script(case: Case, folder: Path) -> str:
    """The program that writes the model of a case; another process runs it, so that this one stays small."""
    names = {"llama": "Llama", "qwen3": "Qwen3"}[case.family]
    return f"""
import torch, transformers
from tests import tinymodel
tokenizer = tinymodel.make_tokenizer()
config = transformers.{names}Config(**{case.config!r}, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
model = transformers.{names}ForCausalLM(config).to(getattr(torch, {case.stored!r}))
model.generation_config = transformers.GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
model.save_pretrained({str(folder)!r})
tokenizer.save_pretrained({str(folder)!r})
"""


def rows_of(case: Case) -> list[dict[str, Any]]:
    """Rows of prompt and completion. A letter after a space is a token or two of the tiny tokenizer."""
    rows = []
    for index in range(3 * case.rows * case.accumulation):
        length = case.length // 2 if case.uneven and index % 2 else case.length
        answer = max(1, round(length * case.answers))
        rows.append({"prompt": "0" * (length - answer - 1), "completion": "1" * answer})
    return rows


def environment() -> dict[str, str]:
    """Variables of the processes: as in a pod, with the code of this checkout."""
    return {**os.environ, "PYTHONPATH": f"{ROOT / 'crds'}:{ROOT / 'runtime'}:{ROOT}", "HF_HUB_OFFLINE": "1"}


def measure(case: Case, folder: Path) -> Outcome:
    """Train a case and return its estimate and its peak. Raises RuntimeError with the log of a training that fails."""
    model = folder / "model"
    subprocess.run([sys.executable, "-c", model_script(case, model)], check=True, env=environment(), cwd=ROOT)
    tuner = {"tuner": case.tuner, **({"lora": {"rank": 16}} if case.tuner == "lora" else {})}
    run = make_run(folder, model, rows_of(case), case.training, **tuner)
    memory, architecture = estimated(run, model, folder / "scratch")
    return Outcome(case, memory, architecture, _peak_of(run, folder))


def estimated(run: Run, model: Path, scratch: Path) -> tuple[Memory, Architecture]:
    """Estimate a run by the files of its model and its encoded rows, as the preparation pod does."""
    job = run.spec.fine_tune_job()
    work = Work(scratch)
    scratch.mkdir()
    work.model().symlink_to(model)
    (scratch / "data").symlink_to(run.work.data)
    architecture = read_architecture(open_storage(run.spec.store), f"file://{model}")
    workload = count_encoded(encode_lightly(job, work))
    return peak(setup_of(job, architecture, workload)), architecture


def _peak_of(run: Run, folder: Path) -> int:
    """Bytes of resident memory that the process of the verb train had at most."""
    spec_file, log = folder / "run-spec.json", folder / "train.log"
    spec_file.write_text(json.dumps(run.spec.to_dict()))
    command = [
        sys.executable,
        "-m",
        "tunesmith_runtime",
        "train",
        "--spec",
        str(spec_file),
        "--work",
        str(run.work.root),
    ]
    report = folder / "termination.json"
    report.touch()
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**environment(), "TUNESMITH_TERMINATION_LOG": str(report)},
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(log.read_text()[-3000:])
    return usage.ru_maxrss * KIB
