"""EvalScope's arguments for each benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tunesmith_api.evaljob import PICTURE_TYPES, Benchmark, BenchmarkDataset, BenchmarkType, Generation
from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.evaluate.own_rows import OwnRows, folder_of
from tunesmith_runtime.evaluate.pictures import ReadBytes, nothing
from tunesmith_runtime.workdir import Work

QA = "tunesmith_qa"
"""Name of our benchmark in EvalScope's registry (see adapter.py)."""
MULTIPLE_CHOICE = "general_mcq"
PICTURES: Mapping[BenchmarkType, str] = {kind: f"tunesmith_{kind}" for kind in sorted(PICTURE_TYPES)}
"""Names of our benchmarks of pictures (see picture_adapter.py)."""

OWN: Mapping[BenchmarkType, str] = {BenchmarkType.QA: QA, BenchmarkType.MULTIPLE_CHOICE: MULTIPLE_CHOICE, **PICTURES}

CHOICE_TEMPLATE = """
Answer the following multiple choice question. The entire content of your response should be of the following format: \
'ANSWER: [LETTER]' (without quotes) where [LETTER] is one of {letters}.

{question}

{choices}
""".strip()
"""Prompt of a multiple-choice question. EvalScope's default for local sets is in Chinese."""


@dataclass(frozen=True)
class Task:
    """A benchmark in EvalScope's terms."""

    benchmark: Benchmark
    dataset: str
    """Name in EvalScope's registry."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """`dataset_args` of that name."""

    @property
    def name(self) -> str:
        """Name in the spec and in the results."""
        return self.benchmark.name

    @property
    def is_own(self) -> bool:
        """Whether it asks a user's rows."""
        return self.dataset in OWN.values()

    @property
    def limit(self) -> int | None:
        """Number of rows of each subset that EvalScope takes; None for users' rows, which are limited when they are converted."""
        return None if self.is_own else self.benchmark.limit


def prepare(
    benchmark: Benchmark,
    generation: Generation,
    work: Work,
    read_bytes: ReadBytes = nothing,
    trust_remote_code: bool = False,
) -> Task:
    """Return the task of a benchmark; check and convert a user's rows, whose pictures `read_bytes` reads.

    Raises RunFailure: BadRow with file and line, EmptyDataset, DatasetNotFound for a missing subset, BadSpec.
    """
    dataset = benchmark.dataset
    if dataset is not None and dataset.type in OWN:
        _check_few_shot(benchmark, dataset)
        rows = OwnRows(benchmark, dataset, work, read_bytes, trust_remote_code)
        return Task(benchmark, OWN[dataset.type], {**rows.write(), **_prompts(dataset.type, generation)})
    arguments: dict[str, Any] = {}
    if dataset is not None:
        arguments["local_path"] = str(folder_of(benchmark, work))
    if benchmark.subsets is not None:
        arguments["subset_list"] = list(benchmark.subsets)
    if benchmark.few_shot is not None:
        arguments["few_shot_num"] = benchmark.few_shot
    return Task(benchmark, benchmark.name, arguments)


def _check_few_shot(benchmark: Benchmark, dataset: BenchmarkDataset) -> None:
    if benchmark.few_shot:
        raise RunFailure(
            FailureClass.BAD_SPEC,
            f"benchmark {benchmark.name}: fewShot is for EvalScope's own benchmarks, and this one is of type {dataset.type}",
            "remove spec.benchmarks[].fewShot, and write the examples into the rows",
        )


def _prompts(kind: BenchmarkType, generation: Generation) -> dict[str, Any]:
    if kind is BenchmarkType.MULTIPLE_CHOICE:
        return {"prompt_template": CHOICE_TEMPLATE}
    return {} if generation.system_prompt is None else {"system_prompt": generation.system_prompt}
