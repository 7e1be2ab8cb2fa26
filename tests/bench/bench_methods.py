"""Speed and memory of DPO and GRPO beside TRL's DPOTrainer and GRPOTrainer: `python -m tests.bench.bench_methods`.

A Qwen3 of 10 million parameters with a vocabulary of 49,152, random weights, LoRA of rank 16 on all linear layers, float32. DPO has batches
of 8 pairs with answers of 5 to 60 words; GRPO has batches of 16 completions of 32 tokens, 4 of each prompt, which transformers samples, and
rewards a letter. Each round starts both in turn, each in a process of its own.
"""

from __future__ import annotations

import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests import tinymodel

ROUNDS = 3
ROWS = 128
VOCABULARY = 49_152
CONTESTANTS = ("tunesmith", "trl")
METHODS = {"dpo": ("prompt", "chosen", "rejected"), "grpo": ("prompt",)}
"""The methods, and the columns of their rows."""
FIGURES = ("first_step_seconds", "rows_per_second", "rows_per_cpu_second", "rss_bytes")

Figures = dict[str, float]


def make_model(folder: Path) -> None:
    """Save the model with the tokenizer of the tests."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = tinymodel.make_tokenizer()
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=160, intermediate_size=480, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=2, head_dim=40, max_position_embeddings=1024, tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def preferences(seed: int) -> Iterator[dict[str, Any]]:
    """Rows with answers of random words."""
    choose = random.Random(seed)
    words = [word for members in tinymodel.CATEGORIES.values() for word in members]

    def text(most: int) -> str:
        return " ".join(choose.choices(words, k=choose.randint(5, most)))

    for _ in range(ROWS):
        prompt, chosen, rejected = (
            [{"role": role, "content": text(most)}]
            for role, most in (("user", 40), ("assistant", 60), ("assistant", 60))
        )
        yield {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def measure(method: str, folder: Path) -> Iterator[tuple[str, Figures]]:
    """Yield the figures of both contestants, in alternating order."""
    for round_ in range(ROUNDS):
        for contestant in CONTESTANTS if round_ % 2 else reversed(CONTESTANTS):
            command = [sys.executable, "-m", "tests.bench.method_process", contestant, method, str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{contestant} ended with {done.returncode}: {done.stderr}")
            yield contestant, json.loads(done.stdout.splitlines()[-1])
            for name in CONTESTANTS:
                shutil.rmtree(folder / name, ignore_errors=True)


def main() -> None:
    """Print the figures of each method."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder / "model")
        for method, columns in METHODS.items():
            rows = [{column: row[column] for column in columns} for row in preferences(0)]
            tinymodel.write_rows(folder / f"{method}.jsonl", rows)
            report(method, folder)


def report(method: str, folder: Path) -> None:
    """Print the median and the range of each figure, and of the ratio in each round."""
    found: dict[str, list[Figures]] = {name: [] for name in CONTESTANTS}
    for contestant, figures in measure(method, folder):
        found[contestant].append(figures)
    print(f"| {method.upper()} | Tunesmith | TRL | ratio |\n|---|---|---|---|")
    for figure in FIGURES:
        ours, theirs = ([each[figure] for each in found[name]] for name in CONTESTANTS)
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        print(f"| {figure} | {shown(ours)} | {shown(theirs)} | {shown(ratios)} |", flush=True)


def shown(values: list[float]) -> str:
    """Return the median and the range."""
    return f"{statistics.median(values):,.4g} ({min(values):,.4g} to {max(values):,.4g})"


if __name__ == "__main__":
    main()
