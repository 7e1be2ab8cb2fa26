"""Reading data files: every row is used, counted as dropped, or refused with its file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import tinymodel
from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_runtime.data.encode import Encoder
from tunesmith_runtime.data.load import Data, load
from tunesmith_runtime.data.split import split
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.work import DataFile, Work

SOUND = {"prompt": "2 + 2 =", "completion": " 4"}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tinymodel.make_tokenizer()


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path)


def given_files(work: Work, *files: tuple[int | None, list[Any]]) -> None:
    """Files as fetch leaves them: (index of the data set, rows or raw lines)."""
    entries = []
    for number, (dataset, rows) in enumerate(files):
        entries.append(DataFile(path=f"{number:02}.jsonl", uri=f"s3://data/part-{number}/train.jsonl", dataset=dataset))
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        work.data.mkdir(exist_ok=True)
        (work.data / entries[-1].path).write_bytes(b"\n".join(lines) + b"\n")
    work.write_data_files(entries)


def read(work: Work, tokenizer: Any, **spec: Any) -> Data:
    made = {"model": {"uri": "s3://m/base"}, "datasets": [{"uri": "s3://data/part-0/train.jsonl"}], **spec}
    job = FineTuneJobSpec.model_validate(made)
    return load(work, job, Encoder.of(tokenizer, frozenset([tokenizer.eos_token_id]), job.training))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b'{"prompt": "2"', r"column \d+ is not JSON"),
        (b"[1, 2]", r"is a list; expected one JSON object"),
        (b'{"prompt": "\xff"}', r"byte \d+ is not UTF-8"),
        (b'{"prompt": "2"}', r"has no 'completion'"),
        (b'{"prompt": 2, "completion": "4"}', r"'prompt' is a number"),
    ],
)
def test_a_broken_row_in_line_17_is_named_by_file_and_line(
    work: Work, tokenizer: Any, line: bytes, sentence: str
) -> None:
    given_files(work, (0, [*[SOUND] * 15, b"", line, SOUND]))
    with pytest.raises(
        RunFailure, match=rf"^BadRow: train\.jsonl line 17: .*{sentence}.*s3://data/part-0/train\.jsonl"
    ) as failure:
        read(work, tokenizer)
    assert failure.value.failure is FailureClass.BAD_ROW


def test_dropped_rows_are_counted_by_reason(work: Work, tokenizer: Any) -> None:
    long = {"prompt": "2 " * 50, "completion": "4"}
    empty = {"prompt": "2", "completion": ""}
    given_files(work, (0, [SOUND, long, empty, SOUND, long]))
    rows = read(work, tokenizer, training={"maxLength": 32}).rows
    assert rows.to_dict() == {
        "kept": 2, "dropped": [{"reason": "EmptyAnswer", "count": 1}, {"reason": "TooLong", "count": 2}],
    }  # fmt: skip


def test_an_empty_file_is_an_empty_dataset(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, []))
    with pytest.raises(
        RunFailure, match=r"no row of s3://data/part-0/train\.jsonl can be used: there are none"
    ) as failure:
        read(work, tokenizer)
    assert failure.value.failure is FailureClass.EMPTY_DATASET


def test_a_data_set_of_dropped_rows_says_why_it_is_empty(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [{"prompt": "2", "completion": ""}] * 3))
    with pytest.raises(RunFailure, match="dropped 3 EmptyAnswer"):
        read(work, tokenizer)


def test_data_sets_are_read_in_order_each_in_its_own_format(work: Work, tokenizer: Any) -> None:
    given_files(work, (1, [{"text": "c"}]), (0, [{"prompt": "a", "completion": "b"}]))
    data = read(
        work, tokenizer, datasets=[{"uri": "s3://data/part-1/train.jsonl"}, {"uri": "s3://data/part-0/train.jsonl"}]
    )
    assert [tokenizer.decode(example.input_ids) for example in data.train] == ["ab<|im_end|>", "c<|im_end|>"]


def test_max_rows_takes_the_first_rows_of_a_data_set(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [{"text": "a"}, {"text": "b"}]), (0, [{"text": "c"}, b"not read"]))
    data = read(work, tokenizer, datasets=[{"uri": "s3://data/part-0/train.jsonl", "maxRows": 3}])
    assert data.rows.kept == 3


def test_columns_are_renamed(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [{"q": "2 + 2 =", "a": " 4"}]))
    dataset = {"uri": "s3://data/part-0/train.jsonl", "columns": {"q": "prompt", "a": "completion"}}
    assert read(work, tokenizer, datasets=[dataset]).rows.kept == 1


def test_a_format_that_sft_does_not_learn_from_is_refused(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [SOUND]))
    with pytest.raises(RunFailure, match=r"format preference: method sft learns from messages") as failure:
        read(work, tokenizer, datasets=[{"uri": "s3://data/part-0/train.jsonl", "format": "preference"}])
    assert failure.value.failure is FailureClass.BAD_SPEC


def test_validation_rows_may_come_from_a_file_of_their_own(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [SOUND] * 3), (None, [{"text": "held out"}]))
    data = read(work, tokenizer, validation={"uri": "s3://data/part-1/train.jsonl"})
    assert (data.rows.kept, data.rows.validation, len(data.validation)) == (3, 1, 1)


def test_an_empty_validation_file_is_an_empty_dataset(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [SOUND] * 3), (None, []))
    with pytest.raises(RunFailure, match=r"part-1/train\.jsonl can be used"):
        read(work, tokenizer, validation={"uri": "s3://data/part-1/train.jsonl"})


def test_a_fraction_of_the_rows_is_held_out(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [{"text": str(number)} for number in range(40)]))
    data = read(work, tokenizer, validation={"fraction": 0.1})
    assert (data.rows.kept, data.rows.validation) == (36, 4)
    held_out = {tokenizer.decode(example.input_ids) for example in data.validation}
    assert not held_out & {tokenizer.decode(example.input_ids) for example in data.train}


@given(count=st.integers(2, 200), fraction=st.floats(0.001, 0.999), seed=st.integers(0, 2**32))
def test_a_split_loses_no_row_and_is_the_same_for_the_same_seed(count: int, fraction: float, seed: int) -> None:
    train, held_out = split(range(count), fraction, seed)
    assert sorted([*train, *held_out]) == list(range(count))
    assert train
    assert held_out
    assert (train, held_out) == split(range(count), fraction, seed)


def test_one_row_is_never_held_out() -> None:
    assert split(["only"], 0.9, 0) == (["only"], [])
