"""Speed and memory of encoding rows, beside datasets.map, and of a streamed file: `python -m tests.bench rows`.

Rows of English sentences (Python's own help texts), the tokenizer of SmolLM2 with 49,152 tokens. Each round runs every contestant
once, in alternating order, each in a process of its own. Datasets reads the same file, and tokenizes texts in batches. Of
conversations it tokenizes either the whole, in batches, so that all their tokens are learned; or the prompt of each answer and the
prompt with the answer, as TRL does, so that the answers alone are learned. Tunesmith learns the answers alone, detects the format of each row,
and checks that the server would build the same prompts.
"""

from __future__ import annotations

import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from tests.unit.runtime.fetch.test_gguf import real_gguf

ROUNDS = 5
ROWS = 10_000
STREAMED_BYTES = 2_000_000_000
MEGABYTE = 1_000_000
OURS, WHOLE, ANSWERS = "tunesmith", "datasets", "datasets-answers"
CONTESTANTS = {"text": (OURS, WHOLE), "messages": (OURS, WHOLE, ANSWERS)}
"""The contestants for each form of rows."""


@dataclass(frozen=True)
class Measured:
    """Encoding a file of rows: the duration, the CPU time of all threads, and the peak memory over that before."""

    seconds: float
    cpu_seconds: float
    extra_bytes: int


@dataclass(frozen=True)
class Streamed:
    """A training on a streamed file: the time until its first step has ended, and the peak memory of its process."""

    first_step_seconds: float
    rss_bytes: int


def sentences() -> list[str]:
    """The sentences of Python's help texts."""
    text = " ".join(" ".join(topics.values()).split())
    return [sentence for sentence in text.split(". ") if 20 < len(sentence) < 400]


def rows(form: str, seed: int) -> Iterator[dict[str, Any]]:
    """Endless rows, of four sentences as text, or of two questions with their answers as messages."""
    choose, known = random.Random(seed), sentences()
    while True:
        sentences_of_row = choose.sample(known, 4)
        roles = ("user", "assistant") * 2
        messages = [{"role": role, "content": text} for role, text in zip(roles, sentences_of_row, strict=True)]
        yield {"text": ". ".join(sentences_of_row)} if form == "text" else {"messages": messages}


def save_tokenizer(folder: Path) -> None:
    """Save the tokenizer of SmolLM2-135M-Instruct, with its chat template."""
    from transformers import AutoTokenizer

    file = real_gguf()
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)


def write_rows(file: Path, found: Iterable[dict[str, Any]], most_bytes: int | None = None) -> None:
    """Write rows as JSON lines, up to a size."""
    with file.open("w") as out:
        for row in found:
            out.write(json.dumps(row) + "\n")
            if most_bytes is not None and out.tell() > most_bytes:
                return


def process(*arguments: str) -> dict[str, Any]:
    """Run `rows_process`, and return what it prints."""
    command = [sys.executable, "-m", "tests.bench.rows_process", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def races(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the lines of the table beside datasets."""
    for form, contestants in CONTESTANTS.items():
        write_rows(folder / f"{form}.jsonl", islice(rows(form, 1), ROWS))
        found: dict[str, list[Measured]] = {name: [] for name in contestants}
        for number in range(ROUNDS):
            for name in contestants if number % 2 == 0 else reversed(contestants):
                work = folder / "work"
                found[name].append(Measured(**process(name, form, str(folder), str(work))))
                shutil.rmtree(work)
        for name, measured in found.items():
            rates = [ROWS / each.seconds for each in measured]
            used = statistics.median(each.cpu_seconds for each in measured) / ROWS * 1e3
            extra = max(each.extra_bytes for each in measured) / MEGABYTE
            yield (
                f"{ROWS:,} rows of {form}, {name}",
                f"{spread(rates, ',.0f')} rows/s, {used:.2f} ms of CPU a row, {extra:.0f} MB more",
            )
        for name in contestants[1:]:
            pairs = list(zip(found[OURS], found[name], strict=True))
            yield (
                f"{form}: tunesmith's rate over that of {name}",
                (
                    f"{spread([theirs.seconds / ours.seconds for ours, theirs in pairs], '.2f')}, "
                    f"by CPU {spread([theirs.cpu_seconds / ours.cpu_seconds for ours, theirs in pairs], '.2f')}"
                ),
            )


def streams(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the lines of the table of a streamed file: one of 2 GB beside one of 2 MB."""
    found = {}
    for size in (STREAMED_BYTES // 1000, STREAMED_BYTES):
        write_rows(folder / "text.jsonl", rows("text", 2), size)
        found[size] = Streamed(**process("stream", "text", str(folder), str(folder / "work")))
        shutil.rmtree(folder / "work")
        yield (
            f"{size / MEGABYTE:,.0f} MB streamed",
            f"first step after {found[size].first_step_seconds:.1f} s, peak {found[size].rss_bytes / MEGABYTE:,.0f} MB",
        )
    small, large = found.values()
    yield "memory that 2 GB take more than 2 MB", f"{(large.rss_bytes - small.rss_bytes) / MEGABYTE:.0f} MB"


def spread(values: list[float], form: str) -> str:
    """Return the median and the range."""
    return f"{statistics.median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def main() -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory(prefix="tunesmith-bench-") as name:
        folder = Path(name)
        save_tokenizer(folder / "model")
        for part in (races, streams):
            for label, value in part(folder):
                print(f"{label:<58}{value}", flush=True)


if __name__ == "__main__":
    main()
