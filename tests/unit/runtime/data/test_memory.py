"""The memory of a process does not grow with the data: encoded rows stay on disk."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from tests import tinymodel
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_runtime.data.encode import Encoder
from tunesmith_runtime.data.load import load
from tunesmith_runtime.data.records import PlainText
from tunesmith_runtime.data.row_encoder import Learnable
from tunesmith_runtime.workdir import DataFile, Work

ROWS = 1_000_000
MOST = 300 << 20


def memory(key: str) -> int:
    """Bytes of this process (proc_pid_status(5)): VmRSS now, VmHWM at its peak."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{key}:")[2].split()[0]) << 10


def memory_of_loading(root: Path) -> tuple[int, int, int]:
    """VmRSS before, VmRSS after and VmHWM while the rows below `root` are encoded and an epoch of them is ordered."""
    import datasets  # noqa: F401  # its import is not what is measured

    from tunesmith_runtime.data.example_file import example_lengths
    from tunesmith_runtime.train.rows.batches import order

    job = FineTuneJobSpec.model_validate(
        {
            "model": {"uri": "s3://models/base"},
            "datasets": [{"uri": "s3://data/train.jsonl"}],
            "validation": {"fraction": 0.1},
        }
    )
    tokenizer = tinymodel.make_tokenizer()
    encoder = Encoder.of(tokenizer, frozenset([tokenizer.eos_token_id]), job.training)
    encoder.encode(PlainText("warm up"))
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = memory("VmRSS")
    data = load(Work(root), job, encoder, Learnable(job.method, frozenset({PlainText})))
    epoch = order(example_lengths(data.train.data), 16, seed=1, epoch=0)
    for index in epoch[:10_000]:
        assert data.train[index]["input_ids"]
    assert (data.rows.kept, data.rows.validation) == (ROWS * 9 // 10, ROWS // 10)
    return before, memory("VmRSS"), memory("VmHWM")


@pytest.mark.deep
def test_a_million_rows_take_less_memory_than_300_mib(tmp_path: Path) -> None:
    work = Work(tmp_path)
    work.write_data_files([DataFile(path="00.jsonl", uri="s3://data/train.jsonl", dataset=0)])
    with (work.data / "00.jsonl").open("w") as file:
        file.writelines(f'{{"text": "{number} + {number % 97} = {number + number % 97}"}}\n' for number in range(ROWS))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as processes:
        before, after, peak = processes.submit(memory_of_loading, tmp_path).result()
    print(f"VmRSS {before >> 20} MiB before, {after >> 20} MiB after, {peak >> 20} MiB at the peak")
    assert peak - before < MOST
