from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunesmith_api.datasets import Dataset
from tunesmith_api.evaljob import Benchmark, Generation
from tunesmith_api.failures import FailureClass
from tunesmith_runtime.data import formats
from tunesmith_runtime.data.formats.template import template_format
from tunesmith_runtime.data.records import Continuation, Conversation, PlainText
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.evaluate.benchmarks import QA, Task, prepare
from tunesmith_runtime.workdir import Work

GOOD = {"query": "What is a kiwi?", "response": "fruit"}
CHOICE = {"question": "What is a kiwi?", "A": "fruit", "B": "tool", "answer": "A"}


def write(work: Work, name: str, *lines: Any, folder: str = "words") -> None:
    file = work.benchmarks / folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))


def make(
    work: Work, uri: str = "s3://data/words.jsonl", kind: str = "qa", prompt: str | None = None, **fields: Any
) -> Task:
    benchmark = Benchmark.model_validate({"name": "words", "dataset": {"uri": uri, "type": kind}, **fields})
    return prepare(benchmark, Generation(system_prompt=prompt), work)


def rows_of(task: Task, subset: str = "default") -> list[dict[str, Any]]:
    lines = (Path(task.arguments["local_path"]) / f"{subset}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path)


def test_rows_are_written_as_evalscope_reads_them(work: Work) -> None:
    write(work, "words.jsonl", GOOD, "", GOOD)
    task = make(work, prompt="One word.")
    assert (task.dataset, task.arguments["system_prompt"], task.limit) == (QA, "One word.", None)
    assert rows_of(task) == [{"messages": [{"role": "user", "content": "What is a kiwi?"}], "response": "fruit"}] * 2


@pytest.mark.parametrize(
    ("row", "fields"),
    [
        ({"query": "What is a kiwi?", "response": "fruit"}, {}),
        ({"question": "What is a kiwi?", "answer": "fruit"}, {}),
        ({"instruction": "What is", "input": "a kiwi?", "output": "fruit"}, {}),
        ({"conversation": [{"human": "What is a kiwi?", "assistant": "fruit"}]}, {}),
        ({"messages": [{"role": "user", "content": "What is a kiwi?"}, {"role": "assistant", "content": "fruit"}]}, {}),
        ({"frage": "What is a kiwi?", "antwort": "fruit"}, {"columns": {"frage": "query", "antwort": "response"}}),
        ({"word": "kiwi", "is": "fruit"}, {"template": {"prompt": "What is a {word}?", "completion": "{is}"}}),
    ],
)
def test_a_row_is_tested_with_the_question_that_it_is_trained_on(
    work: Work, row: dict[str, Any], fields: dict[str, Any]
) -> None:
    write(work, "words.jsonl", row)
    benchmark = {"name": "words", "dataset": {"uri": "s3://data/words.jsonl", **fields}}
    (asked,) = rows_of(prepare(Benchmark.model_validate(benchmark), Generation(), work))
    dataset = Dataset.model_validate({"uri": "s3://data/words.jsonl", **fields})
    renamed = formats.rename(row, dataset.columns or {})
    row_format = (
        template_format(dataset.template, "datasets[].template")
        if dataset.template
        else formats.detect(renamed, {Conversation, Continuation, PlainText})
    )
    learned = formats.read(renamed, row_format)
    assert isinstance(learned, Conversation)
    *question, answer = learned.messages
    assert asked == {"messages": question, "response": answer["content"]}


def test_a_limit_takes_the_first_rows_of_all_files(work: Work) -> None:
    for name in ("a", "b", "c"):
        write(work, f"{name}.jsonl", *[GOOD] * 3)
    task = make(work, "s3://data/words/", limit=4)
    assert task.arguments["subset_list"] == ["a", "b"]
    assert [len(rows_of(task, subset)) for subset in ("a", "b")] == [3, 1]


def test_rows_after_the_limit_are_not_read(work: Work) -> None:
    write(work, "words.jsonl", GOOD, "{broken")
    assert len(rows_of(make(work, limit=1))) == 1


def test_the_files_of_a_folder_are_its_subsets(work: Work) -> None:
    for name in ("fruit", "tools"):
        write(work, f"{name}.jsonl", GOOD)
    assert make(work, "s3://data/words", subsets=["tools"]).arguments["subset_list"] == ["tools"]
    with pytest.raises(RunFailure, match="has no subset metals; it has fruit, tools"):
        make(work, "s3://data/words", subsets=["metals"])


def test_a_broken_row_is_named_by_file_and_line(work: Work) -> None:
    write(work, "words.jsonl", *[GOOD] * 16, {"query": "What is a kiwi?"})
    with pytest.raises(RunFailure, match=r"words\.jsonl line 17: is in no known form.*s3://data/words\.jsonl") as wrong:
        make(work)
    assert wrong.value.failure is FailureClass.BAD_ROW
    write(work, "words.jsonl", GOOD, "{broken")
    with pytest.raises(RunFailure, match=r"words\.jsonl line 2: column 2 is not JSON"):
        make(work)


def test_half_of_a_utf_16_pair_is_named_by_file_and_line(work: Work) -> None:
    write(work, "words.jsonl", GOOD, r'{"query": "q \ud83d", "response": "x"}')
    with pytest.raises(RunFailure, match=r"words\.jsonl line 2: query has half of a UTF-16 pair") as wrong:
        make(work)
    assert wrong.value.failure is FailureClass.BAD_ROW


def test_keys_that_are_not_read_are_in_the_log(work: Work, caplog: pytest.LogCaptureFixture) -> None:
    write(work, "words.jsonl", {**GOOD, "id": 1}, {**GOOD, "id": 2, "topic": "fruit"})
    make(work)
    assert "s3://data/words.jsonl: keys that are not read: id (2 rows), topic (1 rows)" in caplog.text


def test_a_set_without_rows_is_empty(work: Work) -> None:
    write(work, "words.jsonl", "", " ")
    with pytest.raises(RunFailure, match="there is no row in s3://data/words") as wrong:
        make(work)
    assert wrong.value.failure is FailureClass.EMPTY_DATASET


def test_a_folder_without_rows_files_is_refused(work: Work) -> None:
    write(work, "readme.md", "hello")
    with pytest.raises(RunFailure, match=r"has no file of rows") as wrong:
        make(work)
    assert wrong.value.failure is FailureClass.DATASET_NOT_FOUND


def test_few_shot_is_refused_for_users_rows(work: Work) -> None:
    write(work, "words.jsonl", GOOD)
    with pytest.raises(RunFailure, match="fewShot is for EvalScope's own benchmarks") as wrong:
        make(work, fewShot=2)
    assert wrong.value.failure is FailureClass.BAD_SPEC
    assert make(work, fewShot=0)


def test_multiple_choice_is_asked_in_english(work: Work) -> None:
    write(work, "words.jsonl", CHOICE)
    task = make(work, kind="multipleChoice")
    assert task.dataset == "general_mcq"
    assert task.arguments["prompt_template"].startswith("Answer the following multiple choice question.")
    assert rows_of(task) == [CHOICE]


def test_a_benchmark_of_evalscope_reads_the_fetched_folder(work: Work) -> None:
    write(work, "test.jsonl", {"question": "1 + 1?", "answer": "#### 2"}, folder="gsm8k")
    benchmark = Benchmark.model_validate(
        {
            "name": "gsm8k",
            "dataset": {"uri": "s3://data/gsm8k", "type": "benchmark"},
            "limit": 5,
            "fewShot": 0,
            "subsets": ["main"],
        }
    )
    task = prepare(benchmark, Generation(), work)
    assert (task.dataset, task.limit) == ("gsm8k", 5)
    assert task.arguments == {"local_path": str(work.benchmarks / "gsm8k"), "subset_list": ["main"], "few_shot_num": 0}
