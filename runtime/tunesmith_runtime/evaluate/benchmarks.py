"""EvalScope's arguments for each benchmark, and users' rows in the form and place where EvalScope reads them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from tunesmith_api.evaljob import Benchmark, BenchmarkDataset, BenchmarkType, Generation
from tunesmith_api.failures import FailureClass
from tunesmith_runtime.data.dataset_rows import Part, parts_of
from tunesmith_runtime.data.files import of_one_type, read_rows, stem_of
from tunesmith_runtime.data.files.place import bad_row
from tunesmith_runtime.data.row_counts import count_ignored, warn_of_ignored
from tunesmith_runtime.data.row_error import RowError, row_errors
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.evaluate.rows import Row, converter
from tunesmith_runtime.workdir import Work

QA = "tunesmith_qa"
"""Name of our benchmark in EvalScope's registry (see adapter.py)."""
MULTIPLE_CHOICE = "general_mcq"

OWN: Mapping[BenchmarkType, str] = {BenchmarkType.QA: QA, BenchmarkType.MULTIPLE_CHOICE: MULTIPLE_CHOICE}

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
    def limit(self) -> int | None:
        """Number of rows of each subset that EvalScope takes; None for users' rows, which are limited when they are converted."""
        return None if self.dataset in OWN.values() else self.benchmark.limit


def prepare(benchmark: Benchmark, generation: Generation, work: Work) -> Task:
    """Return the task of a benchmark; check and convert a user's rows.

    Raises RunFailure: BadRow with file and line, EmptyDataset, DatasetNotFound for a missing subset, BadSpec.
    """
    if benchmark.dataset is not None and benchmark.dataset.type in OWN:
        return _own(benchmark, generation, work)
    arguments: dict[str, Any] = {}
    if benchmark.dataset is not None:
        arguments["local_path"] = str(_folder(work.benchmarks / benchmark.name))
    if benchmark.subsets is not None:
        arguments["subset_list"] = list(benchmark.subsets)
    if benchmark.few_shot is not None:
        arguments["few_shot_num"] = benchmark.few_shot
    return Task(benchmark, benchmark.name, arguments)


def _own(benchmark: Benchmark, generation: Generation, work: Work) -> Task:
    """Convert a user's rows to a local benchmark of EvalScope."""
    assert benchmark.dataset is not None
    kind, uri = benchmark.dataset.type, benchmark.dataset.source
    if benchmark.few_shot:
        raise RunFailure(
            FailureClass.BAD_SPEC,
            f"benchmark {benchmark.name}: fewShot is for EvalScope's own benchmarks, and this one is of type {kind}",
            "remove spec.benchmarks[].fewShot, and write the examples into the rows",
        )
    files = _row_files(benchmark, work.benchmarks / benchmark.name)
    target = work.benchmarks / ".evalscope" / benchmark.name
    target.mkdir(parents=True, exist_ok=True)
    single = len(files) == 1 and benchmark.subsets is None
    left, subsets, unread = benchmark.limit, [], Counter[str]()
    names = [f"{uri}/{file.name}" if Path(uri).name != file.name else uri for file in files]
    parts = parts_of(list(zip(files, names, strict=True)), benchmark.dataset.split)
    for file, name, part in zip(files, names, parts, strict=True):
        rows = list(islice(_converted(file, name, part, benchmark.dataset, unread), left))
        if left is not None:
            left -= len(rows)
        if rows:
            subsets.append("default" if single else stem_of(file.name))
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (target / f"{subsets[-1]}.jsonl").write_text(text, encoding="utf-8")
    warn_of_ignored(uri, unread)
    if not subsets:
        raise RunFailure(FailureClass.EMPTY_DATASET, f"benchmark {benchmark.name}: there is no row in {uri}")
    arguments: dict[str, Any] = {"local_path": str(target), "subset_list": subsets}
    if kind is BenchmarkType.MULTIPLE_CHOICE:
        arguments["prompt_template"] = CHOICE_TEMPLATE
    elif generation.system_prompt is not None:
        arguments["system_prompt"] = generation.system_prompt
    return Task(benchmark, OWN[kind], arguments)


def _converted(file: Path, uri: str, part: Part, dataset: BenchmarkDataset, unread: Counter[str]) -> Iterator[Row]:
    """Yield the converted rows of a part of a file; count keys that are not read in `unread`."""
    convert = converter(dataset)
    for place, row in islice(read_rows(file, uri), *part):
        try:
            with row_errors("cannot be read"):
                converted, ignored = convert(row)
                count_ignored(unread, ignored)
        except RowError as error:
            raise bad_row(uri, place, str(error), error.hint) from error
        yield converted


def _row_files(benchmark: Benchmark, folder: Path) -> list[Path]:
    """Return the files of the subsets that the benchmark names, or of all."""
    assert benchmark.dataset is not None
    found = sorted(file.name for file in _folder(folder).iterdir() if file.is_file())
    rows = of_one_type(found)
    files = {stem_of(name): folder / name for name in rows}
    if len(files) < len(rows):
        twice = ", ".join(name for name in rows if files[stem_of(name)].name != name)
        message = f"benchmark {benchmark.name}: several files of {benchmark.dataset.source} are of one subset: {twice}"
        raise RunFailure(FailureClass.BAD_SPEC, message, "give each file another name")
    for subset in benchmark.subsets or []:
        if subset not in files:
            there = ", ".join(files) or "none"
            raise RunFailure(
                FailureClass.DATASET_NOT_FOUND,
                f"benchmark {benchmark.name}: {benchmark.dataset.source} has no subset {subset}; it has {there}",
                "name files of the folder, without the ending, in spec.benchmarks[].subsets",
            )
    if not files:
        message = f"benchmark {benchmark.name}: {benchmark.dataset.source} has no file of rows"
        raise RunFailure(FailureClass.DATASET_NOT_FOUND, message)
    return [files[subset] for subset in benchmark.subsets or files]


def _folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise RunFailure(
            FailureClass.DATASET_NOT_FOUND, f"{folder} is missing", "run the verb fetch first, with the same --work"
        )
    return folder
