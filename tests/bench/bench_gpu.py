"""LoRA, QLoRA and full tuning of a Llama of 8B on one GPU: `make bench-gpu`.

Needs a machine with one GPU, PyTorch, transformers, peft and accelerate, and neither network nor a model: weights are random. What
else it needs is in build/gpu-packages, which `make bench-gpu-packages` fills beforehand on a machine with a package registry. A
tuner whose packages are missing has a row that names them. On a machine without a GPU: `--small`, a tiny model on the CPU.

Each row is a run of the verb train up to its last step, in a process of its own: packed sequences of 4,096 tokens, a step of 8, all
tokens labelled, bfloat16. MFU counts 4 operations for each weight and token with adapters and 6 with full tuning, without what
is computed twice, of the device's dense bfloat16 rate. The whole takes at most eight minutes.

Targets on one H100 or H200: LoRA at least 12,500 tokens/s; QLoRA at least 0.75 times as fast as LoRA, with at most 60 % of its memory.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ROOT / "build" / "gpu-packages"
sys.path[:0] = [str(ROOT), str(ROOT / "crds"), str(ROOT / "runtime")]
sys.path.append(str(PACKAGES))  # behind those of the machine

SECONDS_AT_MOST, GRACE = 460.0, 20.0
MEMORY_SHARE = 0.92
"""Share of the device's memory that the estimate may need."""
LORA_TARGET = 12_500
SEQUENCES, WARM_STEPS = 8, 2
GIB = 1 << 30


@dataclass(frozen=True)
class Case:
    """A training to measure."""

    tuner: str
    operations: int
    """Operations for each weight and token."""
    optimizer: str = "adamw"


CASES = (Case("lora", 4), Case("qlora", 4), Case("full", 6, optimizer="adafactor"))
"""Full tuning with AdamW needs 16 bytes for each weight, which is the whole memory of an H200."""


@dataclass(frozen=True)
class Size:
    """A model and the length of its sequences."""

    config: dict[str, Any]
    length: int
    steps: int


LARGE = Size(
    {
        "vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 8192, "tie_word_embeddings": False,
    },
    length=4096,
    steps=8,
)  # fmt: skip
SMALL = Size(
    {
        "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 512, "tie_word_embeddings": False,
    },
    length=128,
    steps=4,
)  # fmt: skip
SIZES = {"large": LARGE, "small": SMALL}


@dataclass(frozen=True)
class Figures:
    """What a training was measured to need."""

    micro_batch: int
    checkpointing: bool
    tokens_per_second: float
    mfu: float | None
    """Share of the device's rate; None for a device of unknown rate."""
    peak_bytes: int
    estimated_bytes: int
    kernels: dict[str, str]

    @property
    def error(self) -> float:
        """Difference of the estimate, as a share of the peak."""
        return self.estimated_bytes / self.peak_bytes - 1


class Measured(Exception):
    """The last step is done: the run ends here, without its result."""


def write_model(folder: Path, size: Size) -> None:
    """Write random weights in bfloat16, made where they are made fastest, with the tests' tokenizer."""
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    from tests import tinymodel

    tokenizer = tinymodel.make_tokenizer()
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    config = LlamaConfig(**size.config, **ends, dtype="bfloat16")
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    model.generation_config = GenerationConfig(eos_token_id=ends["eos_token_id"], pad_token_id=ends["pad_token_id"])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def rows(size: Size) -> Iterator[dict[str, Any]]:
    """Texts of which a few fill a sequence, for all steps."""
    from tests import tinymodel

    choose, left = random.Random(0), size.length * SEQUENCES * (size.steps + 1)
    words = [word for members in tinymodel.CATEGORIES.values() for word in members]
    while left > 0:
        count = choose.randint(size.length // 16, size.length // 4)
        left -= count
        yield {"text": " ".join(choose.choices(words, k=count))}


class Clock:
    """Receives the progress of a run: the end of each step and its speed. Ends the run after its last step, or when time is up."""

    def __init__(self, steps: int, deadline: float) -> None:
        self._steps, self._deadline = steps, deadline
        self._ends: list[tuple[float, float]] = []

    def push(self, report: Any) -> None:
        """Note the end of a step. Raises Measured."""
        if report.step > len(self._ends):
            self._ends.append((time.monotonic(), report.tokens_per_second))
        is_late = time.monotonic() > self._deadline and len(self._ends) > WARM_STEPS
        if is_late or len(self._ends) == self._steps:
            raise Measured

    def tokens_per_second(self) -> float:
        """Return the speed after the first steps."""
        times = [(end - start, speed) for (start, _), (end, speed) in itertools.pairwise(self._ends)][WARM_STEPS - 1 :]
        return sum(seconds * speed for seconds, speed in times) / sum(seconds for seconds, _ in times)


class KernelsLog(logging.Handler):
    """Keeps the fast paths that a run logs."""

    kernels: Any = None

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the dictionary that is the argument of the line."""
        if record.msg.startswith("kernels:"):
            self.kernels = record.args


def measure(case: Case, size: Size, model: Path, folder: Path, deadline: float = math.inf) -> Figures:
    """Train a case on the device of this machine, and return its figures."""
    import torch

    from tests.unit.runtime.train.support import make_run
    from tunesmith_runtime.estimate.devices import find_device
    from tunesmith_runtime.fetch.model_files import StoredFiles
    from tunesmith_runtime.fetch.model_sizes import read_architecture
    from tunesmith_runtime.storage import open_storage
    from tunesmith_runtime.train import reporting, run

    on_gpu = torch.cuda.is_available()
    settings = {
        "maxSteps": size.steps, "epochs": None, "globalBatchSize": SEQUENCES, "maxLength": size.length, "packing": True,
        "lossOn": "all", "precision": "bf16" if on_gpu else "fp32", "optimizer": case.optimizer, "learningRate": 1e-5,
    }  # fmt: skip
    accelerator = ("amd" if torch.version.hip else "nvidia") if on_gpu else "cpu"
    spec: dict[str, Any] = {"tuner": case.tuner, "resources": {"accelerator": accelerator}, "export": {"merge": False}}
    prepared = make_run(folder / "scratch", model, [], settings, **spec)
    architecture = read_architecture(StoredFiles(open_storage(prepared.spec.store), f"file://{model}"))
    limit = torch.cuda.mem_get_info()[1] if on_gpu else math.inf
    chosen, estimated = largest_that_fits(prepared.spec.fine_tune_job(), architecture, size, limit)
    prepared = make_run(folder / "run", model, list(rows(size)), settings | chosen, **spec)
    clock, kernels = Clock(size.steps, deadline), KernelsLog()
    logger = logging.getLogger("tunesmith_runtime.train.course")
    logger.setLevel(logging.INFO)
    logger.addHandler(kernels)
    before, reporting.SECONDS_BETWEEN_REPORTS = reporting.SECONDS_BETWEEN_REPORTS, 0.0
    try:
        run(prepared.spec, prepared.work, clock)  # type: ignore[arg-type]
    except Measured:
        pass
    finally:
        reporting.SECONDS_BETWEEN_REPORTS = before
        logger.removeHandler(kernels)
    speed = clock.tokens_per_second()
    device = find_device([torch.cuda.get_device_name()]) if on_gpu else None
    return Figures(
        micro_batch=chosen["microBatchSize"],
        checkpointing=chosen["gradientCheckpointing"],
        tokens_per_second=speed,
        mfu=device and case.operations * architecture.parameters * speed / (device.teraflops * 1e12),
        peak_bytes=reporting.peak_memory(torch.device("cuda" if on_gpu else "cpu")),
        estimated_bytes=estimated,
        kernels=kernels.kernels,
    )


def largest_that_fits(job: Any, architecture: Any, size: Size, limit: float) -> tuple[dict[str, Any], int]:
    """Return the fastest micro batch, with or without checkpointing, that the estimate finds to fit, and its bytes."""
    from tunesmith_runtime.estimate.memory import peak
    from tunesmith_runtime.estimate.setup import setup_of
    from tunesmith_runtime.estimate.workload import assume

    workload = assume(SEQUENCES * size.steps, size.length)
    choices = [*((rows, False) for rows in (4, 2, 1)), *((rows, True) for rows in (8, 4, 2, 1))]
    for micro_batch, checkpointing in choices:
        settings = {"micro_batch_size": micro_batch, "gradient_checkpointing": checkpointing}
        setup = setup_of(
            job.model_copy(update={"training": job.training.model_copy(update=settings)}), architecture, workload
        )
        needed = peak(setup).total
        if needed <= MEMORY_SHARE * limit:
            break
    return {"microBatchSize": micro_batch, "gradientCheckpointing": checkpointing}, needed


def in_a_process(case: Case, size: str, model: Path, deadline: float) -> Figures | str:
    """Measure a case in a process of its own; return why there are no figures if it fails."""
    command = [
        sys.executable,
        "-m",
        "tests.bench.bench_gpu",
        "--case",
        case.tuner,
        "--size",
        size,
        "--model",
        str(model),
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    left = deadline - time.monotonic()
    try:
        done = subprocess.run(
            [*command, "--seconds", str(left - GRACE)], capture_output=True, text=True, check=False, cwd=ROOT,
            env=environment, timeout=max(1.0, left),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"its steps were not done in the {left:.0f} s that were left"
    if done.returncode:
        return f"it exited with {done.returncode}: {(done.stderr.strip().splitlines() or ['-'])[-1][:300]}"
    return Figures(**json.loads(done.stdout.splitlines()[-1]))


def report(found: dict[str, Figures | str]) -> Iterator[str]:
    """Yield the lines of the table, and of the comparison with the targets."""
    yield "| tuner | tokens/s | MFU | peak memory | estimate | micro batch | kernels |"
    yield "|---|---|---|---|---|---|---|"
    for tuner, each in found.items():
        if isinstance(each, str):
            yield f"| {tuner} | {each} | | | | | |"
            continue
        mfu = (
            "-"
            if each.mfu is None
            else f"{each.mfu:.1%} of {next(case.operations for case in CASES if case.tuner == tuner)}N"
        )
        batch = f"{each.micro_batch}{', recomputed' if each.checkpointing else ''}"
        kernels = ", ".join(f"{name}: {path}" for name, path in each.kernels.items())
        yield (
            f"| {tuner} | {each.tokens_per_second:,.0f} | {mfu} | {each.peak_bytes / GIB:.2f} GiB | {each.error:+.1%} | {batch} | {kernels} |"
        )
    lora, qlora = found.get("lora"), found.get("qlora")
    if isinstance(lora, Figures):
        yield f"LoRA: {lora.tokens_per_second / LORA_TARGET:.2f} of the target of {LORA_TARGET:,} tokens/s"
        if isinstance(qlora, Figures):
            yield (
                f"QLoRA: {qlora.tokens_per_second / lora.tokens_per_second:.2f} of the speed of LoRA (target: 0.75) with "
                f"{qlora.peak_bytes / lora.peak_bytes:.0%} of its memory (target: at most 60 %)"
            )


def main() -> None:
    """Print the table; or, with --case, the figures of a case as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--small", dest="size", action="store_const", const="small", default="large", help="a tiny model"
    )
    parser.add_argument("--size", choices=SIZES, help=argparse.SUPPRESS)
    parser.add_argument("--case", choices=[case.tuner for case in CASES], help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=math.inf, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-gpu-") as name:
        folder = Path(name)
        if options.case:
            case = next(case for case in CASES if case.tuner == options.case)
            deadline = time.monotonic() + options.seconds
            print(json.dumps(asdict(measure(case, SIZES[options.size], options.model, folder, deadline))))
            return
        deadline = time.monotonic() + SECONDS_AT_MOST
        write_model(folder / "model", SIZES[options.size])
        found = {case.tuner: in_a_process(case, options.size, folder / "model", deadline) for case in CASES}
    import torch
    import transformers

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {device}, torch {torch.__version__}, transformers {transformers.__version__}")
    print("\n".join(report(found)))


if __name__ == "__main__":
    main()
