"""Benchmarks that are scored by running code: only where an administrator and the spec's author trust it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunesmith_api.evaljob import Benchmark, BenchmarkDataset, BenchmarkType, Generation
from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.evaluate import scope
from tunesmith_runtime.evaluate.benchmarks import Task
from tunesmith_runtime.evaluate.endpoint import Endpoint

FIELDS = {"task_id": "HumanEval/0", "prompt": "def f():\n", "canonical_solution": "    return 1\n", "entry_point": "f"}


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """HumanEval with data of the user's: `test` is Python that EvalScope would run to score an answer."""
    row = {**FIELDS, "test": f"open({str(tmp_path / 'was-here')!r}, 'w')"}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "test.jsonl").write_text(json.dumps(row) + "\n")
    dataset = BenchmarkDataset(uri="s3://data/humaneval", type=BenchmarkType.BENCHMARK)
    arguments = {"local_path": str(tmp_path / "data"), "subset_list": ["default"]}
    return Task(Benchmark(name="humaneval", dataset=dataset), "humaneval", arguments)


def counted(task: Task, tmp_path: Path, trust_code: bool) -> int:
    scope.quiet_imports(offline=True)
    endpoint = Endpoint(url="http://127.0.0.1:9/v1", key="none", model="m", max_length=None)
    config = scope.configuration(task, Generation(), endpoint, tmp_path / "work")
    return scope.count_questions(task, config, trust_code)


def test_a_benchmark_that_runs_what_models_write_is_refused_before_anything_is_asked(
    task: Task, tmp_path: Path
) -> None:
    with pytest.raises(RunFailure) as failure:
        counted(task, tmp_path, trust_code=False)
    assert failure.value.failure is FailureClass.BAD_SPEC
    assert "runs code" in str(failure.value)
    assert "trustRemoteCode" in str(failure.value.hint)
    assert not (tmp_path / "was-here").exists()


def test_a_benchmark_that_runs_code_is_accepted_if_code_is_trusted(task: Task, tmp_path: Path) -> None:
    assert counted(task, tmp_path, trust_code=True) == 1
