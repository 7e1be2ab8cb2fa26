"""One training in a process of its own, for its speed and its peak memory: see bench_methods.

`python -m tests.bench.method_process tunesmith|trl FOLDER`. Prints seconds to the first step, rows per second and memory as JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

STARTED = time.monotonic()
STEPS, WARM_STEPS, BATCH, RANK, LENGTH = 16, 4, 8, 16, 512


def tunesmith(folder: Path, rows: list[dict[str, Any]]) -> list[float]:
    """Train as a pod does; return the time at the end of each step."""
    from tests.unit.runtime.train.support import make_run
    from tunesmith_api.run import ProgressReport
    from tunesmith_runtime import train
    from tunesmith_runtime.progress_push import ProgressPusher
    from tunesmith_runtime.train import reporting

    ends: list[float] = []

    class Clock(ProgressPusher):
        def push(self, report: ProgressReport) -> None:
            ends.append(time.monotonic())

    reporting.SECONDS_BETWEEN_REPORTS = 0.0
    settings = {
        "maxSteps": STEPS, "globalBatchSize": BATCH, "microBatchSize": BATCH, "maxLength": LENGTH, "precision": "fp32",
        "learningRate": 1e-4,
    }  # fmt: skip
    run = make_run(folder / "tunesmith", folder / "model", rows, settings, method="dpo", lora={"rank": RANK})
    train.run(run.spec, run.work, Clock(None, None))
    return ends[:STEPS]


def trl(folder: Path, rows: list[dict[str, Any]]) -> list[float]:
    """Train with TRL's DPOTrainer and the same settings; return the time at the end of each step."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    ends: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.monotonic())

    arguments = DPOConfig(
        output_dir=str(folder / "trl"), max_steps=STEPS, per_device_train_batch_size=BATCH, max_length=LENGTH,
        learning_rate=1e-4, use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none",
        save_strategy="no", logging_steps=1, disable_tqdm=True,
    )  # fmt: skip
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(folder / "model"),
        peft_config=LoraConfig(r=RANK, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[Clock()],
    )
    trainer.train()
    return ends


def main() -> None:
    """Run the contestant on the command line."""
    contestant, folder = {"tunesmith": tunesmith, "trl": trl}[sys.argv[1]], Path(sys.argv[2])
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    ends = contestant(folder, rows)
    figures = {
        "first_step_seconds": ends[0] - STARTED,
        "rows_per_second": BATCH * (STEPS - WARM_STEPS) / (ends[STEPS - 1] - ends[WARM_STEPS - 1]),
        "rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
