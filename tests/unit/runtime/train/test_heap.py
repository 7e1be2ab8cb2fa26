"""Where memory is short, freed tensors of a training on a CPU return it to the system."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.runtime.train.support import make_run
from tunesmith_api.finetunejob_status import Estimate, EstimatedMemory
from tunesmith_runtime import train
from tunesmith_runtime.train import heap

FRAGMENTED = """
import ctypes, runpy, sys

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
BLOCK = 200 << 10

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

def allocate():
    block = libc.malloc(BLOCK)
    ctypes.memset(block, 1, BLOCK)
    return block

if len(sys.argv) > 1:
    runpy.run_path(sys.argv[1])["return_freed_tensors"]()
libc.free(libc.malloc(24 << 20))  # with the default settings, smaller blocks are on the heap from here on
blocks = [allocate() for _ in range(200)]
full = resident()
for block in blocks[::2]:
    libc.free(block)
print((full - resident()) / (100 * BLOCK))
"""


def returned(*arguments: str, **environment: str) -> float:
    """Share of 20 MB of freed blocks, between blocks in use, that the system gets back."""
    command = [sys.executable, "-c", FRAGMENTED, *arguments]
    variables = {**os.environ, **environment}
    return float(subprocess.run(command, env=variables, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="needs glibc")
def test_gaps_between_tensors_return_to_the_system_unless_the_environment_sets_the_threshold() -> None:
    assert returned() < 0.1
    assert returned(heap.__file__) > 0.9
    assert returned(heap.__file__, MALLOC_MMAP_THRESHOLD_="33554432") < 0.1


def estimate_of(needed: int, limit: int | None) -> Estimate:
    """An estimate of `needed` GiB of tensors beside 1 GiB of libraries, in a pod of `limit` GiB."""
    memory = EstimatedMemory(activations=needed << 30, runtime=1 << 30)
    return Estimate(memory_bytes=needed + 1 << 30, memory=memory, device_memory_bytes=limit and limit << 30)


@pytest.mark.parametrize(
    ("estimate", "short"),
    [(None, False), (Estimate(), False), (estimate_of(10, None), False), (estimate_of(10, 14), True), (estimate_of(10, 15), False)],
)  # fmt: skip
def test_memory_is_short_if_gaps_between_tensors_may_not_fit(estimate: Estimate | None, short: bool) -> None:
    assert heap.is_short(estimate) is short


@pytest.mark.parametrize(("accelerator", "limit", "count"), [("cpu", 11, 1), ("cpu", 64, 0), ("nvidia", 11, 0)])
def test_a_training_on_a_cpu_with_little_memory_alone_changes_its_heap(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accelerator: str, limit: int, count: int
) -> None:
    from tunesmith_runtime.train import course

    run = make_run(tmp_path, tiny, [], resources={"accelerator": accelerator})
    run.work.write_fetched(run.work.fetched().model_copy(update={"estimate": estimate_of(10, limit)}))
    calls: list[str] = []
    monkeypatch.setattr(train, "return_freed_tensors", lambda: calls.append("heap"))
    monkeypatch.setattr(course, "train", lambda *_: calls.append("train"))
    run.do(train.run)
    assert calls == ["heap"] * count + ["train"]
