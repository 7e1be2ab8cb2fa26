"""Encodes a file of rows, or trains on it, in a process of its own, for its time and its memory: see bench_rows.

`python -m tests.bench.rows_process tunesmith|datasets|datasets-answers|stream FORM FOLDER WORK`, with FORM.jsonl and the model in FOLDER. Prints JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.bench_rows import Measured, Streamed
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_runtime.workdir import DataFile, Work

LENGTH = 2048
SOURCE = "s3://data/train.jsonl"


def measured(encode: Callable[[], object]) -> Measured:
    """Measure an encoding."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, cpu, start = memory("VmRSS"), time.process_time(), time.monotonic()
    encode()
    return Measured(time.monotonic() - start, time.process_time() - cpu, memory("VmHWM") - before)


def memory(key: str) -> int:
    """Bytes of this process (proc_pid_status(5)): VmRSS now, VmHWM at its peak."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{key}:")[2].split()[0]) << 10


def tunesmith(form: str, folder: Path, root: Path) -> Measured:
    """Encode the file as a pod does."""
    import datasets  # noqa: F401  # its import is not what is measured

    from tunesmith_runtime.data.encode import Encoder
    from tunesmith_runtime.data.load import load
    from tunesmith_runtime.data.records import Conversation, PlainText
    from tunesmith_runtime.data.row_encoder import Learnable

    job = FineTuneJobSpec.model_validate(
        {"model": {"uri": "s3://models/base"}, "datasets": [{"uri": SOURCE}], "training": {"maxLength": LENGTH}}
    )
    tokenizer = load_tokenizer(folder)
    encoder = Encoder.of(tokenizer, frozenset([tokenizer.eos_token_id]), job.training)
    encoder.encode(PlainText("warm up"))
    learnable = Learnable(job.method, frozenset({Conversation, PlainText}))
    work = prepared(folder / f"{form}.jsonl", root)
    return measured(lambda: load(work, job, encoder, learnable))


def whole_rows(form: str, folder: Path, root: Path) -> Measured:
    """Encode the file with datasets.map in batches of its default size."""
    tokenizer = load_tokenizer(folder)

    def encode(batch: dict[str, list[Any]]) -> dict[str, Any]:
        if form == "text":
            return dict(tokenizer(batch["text"], truncation=True, max_length=LENGTH))
        rendered = tokenizer.apply_chat_template(batch["messages"], tokenize=False)
        return dict(tokenizer(rendered, truncation=True, max_length=LENGTH, add_special_tokens=False))

    return mapped(encode, folder / f"{form}.jsonl", root, batched=True)


def answers_of_rows(form: str, folder: Path, root: Path) -> Measured:
    """Encode the file with datasets.map, so that the tokens of each answer are known."""
    tokenizer = load_tokenizer(folder)

    def encode(row: dict[str, Any]) -> dict[str, Any]:
        tokens, learned = list[int](), list[int]()
        for index, message in enumerate(row["messages"]):
            if message["role"] == "assistant":
                before, after = row["messages"][:index], row["messages"][: index + 1]
                prompt = tokenizer.apply_chat_template(before, add_generation_prompt=True, return_dict=False)
                tokens = tokenizer.apply_chat_template(after, return_dict=False)
                learned += [0] * (len(prompt) - len(learned)) + [1] * (len(tokens) - len(prompt))
        return {"input_ids": tokens[:LENGTH], "completion_mask": learned[:LENGTH]}

    return mapped(encode, folder / f"{form}.jsonl", root, batched=False)


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer, and use it once."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    tokenizer("warm up")
    return tokenizer


def mapped(encode: Callable[[Any], dict[str, Any]], file: Path, root: Path, batched: bool) -> Measured:
    """Measure a map over the file by one process."""
    from datasets import load_dataset

    root.mkdir()

    def run() -> None:
        rows = load_dataset("json", data_files=str(file), split="train", cache_dir=str(root))
        rows.map(encode, batched=batched, remove_columns=rows.column_names)

    return measured(run)


def stream(form: str, folder: Path, root: Path) -> Streamed:
    """Train two steps on a file that is read while it trains."""
    from tests.unit.runtime.train.support import Run, make_run
    from tunesmith_api.run import ProgressReport
    from tunesmith_runtime import train
    from tunesmith_runtime.progress_push import ProgressPusher
    from tunesmith_runtime.train import reporting

    ends: list[float] = []

    class Clock(ProgressPusher):
        def push(self, report: ProgressReport) -> None:
            ends.append(time.monotonic())

    make_model(folder / "model")
    reporting.SECONDS_BETWEEN_REPORTS = 0.0
    settings = {
        "maxSteps": 2, "globalBatchSize": 8, "microBatchSize": 8, "maxLength": 512, "precision": "fp32", "streaming": True, "epochs": None,
    }  # fmt: skip
    run: Run = make_run(root, folder / "model", [], settings)
    (file := run.work.data / "00.jsonl").unlink()
    file.symlink_to(folder / f"{form}.jsonl")
    start = time.monotonic()
    train.run(run.spec, run.work, Clock(None, None))
    return Streamed(ends[0] - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10)


def make_model(folder: Path) -> None:
    """Save a small model beside the tokenizer."""
    import torch
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=2048, tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    Qwen3ForCausalLM(config).save_pretrained(folder)


def prepared(rows: Path, root: Path) -> Work:
    """Return the work directory of a pod that has fetched the file."""
    work = Work(root)
    root.mkdir()
    work.data.mkdir(exist_ok=True)
    (work.data / "00.jsonl").symlink_to(rows)
    work.write_data_files([DataFile(path="00.jsonl", uri=SOURCE, dataset=0)])
    return work


MODES: dict[str, Callable[[str, Path, Path], Measured | Streamed]] = {
    "tunesmith": tunesmith,
    "datasets": whole_rows,
    "datasets-answers": answers_of_rows,
    "stream": stream,
}

if __name__ == "__main__":
    mode, form, folder, work = sys.argv[1:]
    print(json.dumps(vars(MODES[mode](form, Path(folder), Path(work)))))
