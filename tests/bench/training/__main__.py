"""LoRA beside other trainers on this machine's CPU: `python -m tests.bench.training [--models 10M 135M] [--rounds 3] [--only NAME ...]`.

The same random weights, rows, batch, precision (float32) and threads for all; each contestant in a process and an environment of
its own, by turns. A step has 8 rows of 24 to 69 tokens. Figures are medians and ranges over the rounds:

- real tokens/s: tokens without padding, after the first quarter of the steps, by the clock and for each second of CPU time, which
  other load on the machine does not change much;
- first step: from the start of the process to the end of its first step;
- peak memory of the process; loss on held-out rows after all steps.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests import tinymodel
from tests.bench.training.peers import CONTESTANTS, ROOT, CannotInstall, Contestant, interpreter

BATCH, ROWS, HELD_OUT, STEPS = 8, 64, 32, 12
SECONDS_AT_MOST = 600
SHAPES: dict[str, dict[str, Any]] = {
    "10M": {"hidden_size": 160, "intermediate_size": 480, "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2},
    "135M": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3},
}  # fmt: skip
"""Llamas with a vocabulary of 49,152 and tied embeddings; 135M has the shape of SmolLM2-135M."""
FIGURES = {
    "real tokens/s": lambda run: speed(run, "ends"),
    "per CPU second": lambda run: speed(run, "cpu"),
    "first step, s": lambda run: run["ends"][0] - run["started"],
    "CPU seconds to it": lambda run: run["cpu"][0],
    "peak memory, MB": lambda run: run["rss_bytes"] / 1e6,
}

Runs = dict[str, list[dict[str, Any]]]


def make_task(folder: Path, shape: dict[str, Any]) -> None:
    """Write the model, the rows and the held-out rows."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tinymodel.make_tokenizer()
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    config = LlamaConfig(vocab_size=49_152, tie_word_embeddings=True, max_position_embeddings=2048, **ids, **shape)
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    rows = list(conversations(ROWS + HELD_OUT))
    tinymodel.write_rows(folder / "rows.jsonl", rows[:ROWS])
    tinymodel.write_rows(folder / "held-out.jsonl", rows[ROWS:])


def conversations(count: int) -> Iterator[dict[str, Any]]:
    """Questions of 8 to 45 words and answers of 4 to 12, in the words of the tests' tokenizer."""
    choose = random.Random(0)
    words = [word for members in tinymodel.CATEGORIES.values() for word in members]
    for _ in range(count):
        question, answer = (" ".join(choose.choices(words, k=choose.randint(*most))) for most in ((5, 30), (4, 12)))
        yield {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def train(contestant: Contestant, python: Path, folder: Path) -> dict[str, Any]:
    """Run a contestant; return its times and memory. Raises CannotInstall with the end of its output if it fails."""
    shutil.rmtree(folder / contestant.name, ignore_errors=True)
    (folder / contestant.name).mkdir()
    ours = (
        {}
        if contestant.requirements
        else {"PYTHONPATH": ":".join(str(ROOT / each) for each in (".", "crds", "runtime"))}
    )
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "AXOLOTL_DO_NOT_TRACK": "1",
        "HF_HOME": str(folder / "hub"),
        "CUDA_VISIBLE_DEVICES": "",
        **ours,
    }
    program = Path(__file__).with_name("contestant.py")
    command = [python, program, contestant.name, folder, str(STEPS), str(BATCH)]
    started = time.monotonic()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, cwd=folder, timeout=SECONDS_AT_MOST
        )
    except subprocess.TimeoutExpired as error:
        raise CannotInstall(f"took more than {SECONDS_AT_MOST} s") from error
    if done.returncode:
        (folder / f"{contestant.name}.log").write_text(done.stdout + done.stderr)
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
        raise CannotInstall(f"exited with {done.returncode}: {' '.join(last)[:200]}")
    run = {"started": started, **json.loads(done.stdout.splitlines()[-1])}
    if len(run["ends"]) < STEPS:
        raise CannotInstall(f"{len(run['ends'])} of {STEPS} steps could be timed")
    return run


def speed(run: dict[str, Any], clock: str) -> float:
    """Real tokens per second after the first quarter of the steps, by a clock: `ends` or `cpu`."""
    warm = STEPS // 4
    return float(sum(run["tokens"][warm:STEPS]) / (run[clock][STEPS - 1] - run[clock][warm - 1]))


def race(folder: Path, rounds: int, contestants: list[Contestant]) -> tuple[Runs, dict[str, str]]:
    """Run all contestants `rounds` times by turns. Return their runs, and why some have none."""
    pythons, missing = {}, {}
    for each in contestants:
        try:
            pythons[each.name] = interpreter(each)
        except CannotInstall as cause:
            missing[each.name] = str(cause)
    runs: Runs = {name: [] for name in pythons}
    for round_ in range(rounds):
        for each in contestants if round_ % 2 == 0 else reversed(contestants):
            if each.name in missing:
                continue
            try:
                runs[each.name].append(train(each, pythons[each.name], folder))
                outcome = ", ".join(f"{name} {figure(runs[each.name][-1]):,.4g}" for name, figure in FIGURES.items())
            except CannotInstall as cause:
                missing[each.name] = outcome = str(cause)
            print(f"# round {round_ + 1}, {each.name}: {outcome}", file=sys.stderr, flush=True)
    return {name: each for name, each in runs.items() if each and name not in missing}, missing


def held_out(folder: Path, names: list[str]) -> dict[str, float]:
    """Return the loss of each contestant's adapter, and of the base."""
    command = [sys.executable, "-m", "tests.bench.training.heldout", str(folder), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def shown(values: list[float]) -> str:
    """Return the median and the range."""
    return f"{statistics.median(values):,.4g} ({min(values):,.4g} to {max(values):,.4g})"


def report(title: str, runs: Runs, missing: dict[str, str], losses: dict[str, float]) -> Iterator[str]:
    """Yield the lines of a table."""
    yield f"| {title} | {' | '.join(FIGURES)} | CPU speed beside the bare loop | held-out loss, {losses['base']:.3f} before |"
    yield "|---" * (len(FIGURES) + 3) + "|"
    for each in CONTESTANTS:
        if each.name in missing:
            yield f"| {each.title} | {missing[each.name]} |" + " |" * (len(FIGURES) + 1)
        if each.name not in runs:
            continue
        cells = [shown([figure(run) for run in runs[each.name]]) for figure in FIGURES.values()]
        ratio, loss = "-", f"{losses[each.name]:.3f}" if each.name in losses else "no adapter saved"
        if "bare" in runs:
            pairs = zip(runs[each.name], runs["bare"], strict=False)
            ratio = f"{statistics.median(speed(ours, 'cpu') / speed(theirs, 'cpu') for ours, theirs in pairs):.2f}x"
        yield f"| {each.title} | {' | '.join(cells)} | {ratio} | {loss} |"


def main() -> None:
    """Print a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each contestant")
    parser.add_argument("--only", nargs="+", choices=[each.name for each in CONTESTANTS])
    options = parser.parse_args()
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(options.threads))
    contestants = [each for each in CONTESTANTS if not options.only or each.name in options.only]
    print(
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} cores, {options.threads} threads, {platform.processor() or platform.machine()}"
    )
    for model in options.models:
        with tempfile.TemporaryDirectory(prefix="bench-train-") as name:
            make_task(Path(name), SHAPES[model])
            runs, missing = race(Path(name), options.rounds, contestants)
            losses = held_out(Path(name), list(runs))
        print("\n" + "\n".join(report(model, runs, missing, losses)), flush=True)


if __name__ == "__main__":
    main()
