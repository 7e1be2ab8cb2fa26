"""One training in a process of its own, for its speed and its peak memory: see bench_methods.

`python -m tests.bench.method_process tunesmith|trl dpo|grpo FOLDER`. Prints seconds to the first step, rows per second by the clock and of
CPU time, and memory as JSON.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import Trainer

STARTED = time.monotonic()
RANK, LENGTH, RATE = 16, 512, 1e-4
GENERATIONS, COMPLETION_LENGTH = 4, 32
PATTERN = "[a-e]"
"""What a completion is rewarded for."""


@dataclass(frozen=True)
class Work:
    """Steps of a training, and rows (pairs, or completions) of each."""

    steps: int
    warm_steps: int
    """The first steps, which no rate counts."""
    batch: int


WORK: Mapping[str, Work] = {"dpo": Work(16, 4, 8), "grpo": Work(8, 2, 16)}


Ends = list[tuple[float, float]]
"""The clock and the CPU time at the end of each step."""


def now() -> tuple[float, float]:
    """Return the clock and the CPU time of all threads."""
    return time.monotonic(), time.process_time()


OF_METHOD: Mapping[str, dict[str, Any]] = {
    "dpo": {"method": "dpo"},
    "grpo": {
        "method": "grpo",
        "grpo": {"numGenerations": GENERATIONS, "maxCompletionLength": COMPLETION_LENGTH},
        "rewards": [{"name": "letter", "type": "format", "pattern": PATTERN}],
    },
}
"""Fields of Tunesmith's spec."""


def tunesmith(method: str, folder: Path, rows: list[dict[str, Any]]) -> Ends:
    """Train as a pod does; return the end of each step."""
    from tests.unit.runtime.train.support import make_run
    from tunesmith_api.run import ProgressReport
    from tunesmith_runtime import train
    from tunesmith_runtime.progress_push import ProgressPusher
    from tunesmith_runtime.train import reporting

    ends: Ends = []

    class Clock(ProgressPusher):
        def push(self, report: ProgressReport) -> None:
            ends.append(now())

    reporting.SECONDS_BETWEEN_REPORTS = 0.0
    work = WORK[method]
    settings = {
        "maxSteps": work.steps, "globalBatchSize": work.batch, "microBatchSize": work.batch, "maxLength": LENGTH,
        "precision": "fp32", "learningRate": RATE,
    }  # fmt: skip
    run = make_run(folder / "tunesmith", folder / "model", rows, settings, lora={"rank": RANK}, **OF_METHOD[method])
    train.run(run.spec, run.work, Clock(None, None))
    return ends


def trl(method: str, folder: Path, rows: list[dict[str, Any]]) -> Ends:
    """Train with TRL's own trainer of the method, and the same settings; return the end of each step."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    ends: Ends = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(now())

    work = WORK[method]
    trainer = TRAINERS[method](
        {
            "output_dir": str(folder / "trl"), "max_steps": work.steps, "per_device_train_batch_size": work.batch,
            "learning_rate": RATE, "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none",
            "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True,
        },
        model=AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(folder / "model"),
        peft_config=LoraConfig(r=RANK, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[Clock()],
    )  # fmt: skip
    trainer.train()
    return ends


def dpo_trainer(arguments: dict[str, Any], **options: Any) -> Trainer:
    """Return TRL's trainer of DPO."""
    from trl import DPOConfig, DPOTrainer

    return DPOTrainer(args=DPOConfig(**arguments, max_length=LENGTH), **options)


def grpo_trainer(arguments: dict[str, Any], **options: Any) -> Trainer:
    """Return TRL's trainer of GRPO, which samples by transformers and has the loss of the paper, Tunesmith's default."""
    from trl import GRPOConfig, GRPOTrainer

    settings = GRPOConfig(
        **arguments, num_generations=GENERATIONS, max_completion_length=COMPLETION_LENGTH, loss_type="grpo", beta=0.0,
        use_vllm=False,
    )  # fmt: skip
    return GRPOTrainer(args=settings, reward_funcs=has_letter, **options)


def has_letter(completions: Sequence[Sequence[Mapping[str, str]]], **_: Any) -> list[float]:
    """Return the rewards of completions, each a conversation of one message."""
    return [float(re.search(PATTERN, messages[0]["content"], re.DOTALL) is not None) for messages in completions]


TRAINERS: Mapping[str, Callable[..., Trainer]] = {"dpo": dpo_trainer, "grpo": grpo_trainer}


def main() -> None:
    """Run the contestant on the command line."""
    contestant, method, folder = {"tunesmith": tunesmith, "trl": trl}[sys.argv[1]], sys.argv[2], Path(sys.argv[3])
    rows = [json.loads(line) for line in (folder / f"{method}.jsonl").read_text().splitlines()]
    ends, work = contestant(method, folder, rows), WORK[method]
    (first, _), (began, cpu_began), (end, cpu_end) = (ends[at - 1] for at in (1, work.warm_steps, work.steps))
    counted = work.batch * (work.steps - work.warm_steps)
    figures = {
        "first_step_seconds": first - STARTED,
        "rows_per_second": counted / (end - began),
        "rows_per_cpu_second": counted / (cpu_end - cpu_began),
        "rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
