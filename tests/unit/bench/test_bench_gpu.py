"""`make bench-gpu` measures the runtime's own training: on the CPU with a tiny model, the figures are there and its targets are judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench import bench_gpu
from tests.bench.bench_gpu import CASES, GIB, SMALL, Figures, largest_that_fits, measure, report, write_model
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_runtime.estimate.architecture import from_config


def test_a_small_run_is_measured_up_to_its_last_step(tmp_path: Path) -> None:
    write_model(tmp_path / "model", SMALL)
    figures = measure(CASES[0], SMALL, tmp_path / "model", tmp_path / "runs")
    assert figures.tokens_per_second > 0
    assert figures.peak_bytes > 0
    assert -0.9 < figures.error < 9
    assert (figures.micro_batch, figures.checkpointing) == (4, False)
    assert figures.kernels["attention"] == "rows"
    assert not list((tmp_path / "runs").rglob("trained.json"))


def test_less_memory_makes_smaller_batches_and_then_checkpoints() -> None:
    job = FineTuneJobSpec.model_validate(
        {"model": {"uri": "s3://models/m"}, "datasets": [{"uri": "s3://data/a.jsonl"}], "resources": {"accelerator": "nvidia"},
         "training": {"globalBatchSize": 8, "maxLength": 4096, "packing": True}}
    )  # fmt: skip
    architecture = from_config({"model_type": "llama", **bench_gpu.LARGE.config})
    found = [largest_that_fits(job, architecture, bench_gpu.LARGE, gib * GIB) for gib in (1000, 140, 40)]
    assert [each["gradientCheckpointing"] for each, _ in found] == [False, False, True]
    needed = [bytes_ for _, bytes_ in found]
    assert needed == sorted(needed, reverse=True)
    assert needed[1] <= 140 * GIB


LORA = Figures(2, False, 13_000.0, 0.42, 60 * GIB, 57 * GIB, {"attention": "varlen"})


def test_the_table_judges_the_targets_and_says_what_is_missing() -> None:
    qlora = replace(LORA, tokens_per_second=10_400.0, peak_bytes=30 * GIB)
    lines = list(report({"lora": LORA, "qlora": qlora, "full": "it exited with 1: no module named x"}))
    assert lines[2] == "| lora | 13,000 | 42.0% of 4N | 60.00 GiB | -5.0% | 2 | attention: varlen |"
    assert lines[4] == "| full | it exited with 1: no module named x | | | | | |"
    assert lines[5:] == [
        "LoRA: 1.04 of the target of 12,500 tokens/s",
        "QLoRA: 0.80 of the speed of LoRA (target: 0.75) with 50% of its memory (target: at most 60 %)",
    ]


def test_a_case_that_fails_names_its_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_gpu.sys, "executable", "/bin/false")
    assert bench_gpu.in_a_process(CASES[0], "small", tmp_path, bench_gpu.time.monotonic() + 30) == "it exited with 1: -"
