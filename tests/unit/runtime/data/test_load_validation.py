"""Rows to validate on: held out, or from data sets of their own."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.runtime.data.loading import SOUND, given_files, read
from tunesmith_api.failures import FailureClass
from tunesmith_runtime.data.load import open_data
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.workdir import Work


def test_validation_rows_may_come_from_a_file_of_their_own(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [SOUND] * 3), (None, [{"text": "held out"}]))
    data = read(work, tokenizer, validation={"uri": "s3://data/part-1/train.jsonl"})
    assert (data.rows.kept, data.rows.validation, len(data.validation or [])) == (3, 1, 1)


@pytest.mark.parametrize("validation", [None, {"fraction": 0.5}])
def test_another_process_of_the_pod_opens_the_same_data(
    work: Work, tokenizer: Any, validation: dict[str, Any] | None
) -> None:
    given_files(work, (0, [{"text": str(number)} for number in range(8)]))
    data = read(work, tokenizer, validation=validation)
    opened = open_data(work)
    assert opened.rows == data.rows
    assert opened.train.to_list() == data.train.to_list()
    assert (opened.validation and opened.validation.to_list()) == (data.validation and data.validation.to_list())


def test_validation_rows_may_come_from_several_data_sets(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [SOUND] * 3), (None, [{"text": "a"}]), (None, [{"frage": "b", "antwort": "c"}] * 2))
    entries = work.data_files()
    work.write_data_files([*entries[:2], entries[2].model_copy(update={"validation": 1})])
    columns = {"frage": "query", "antwort": "response"}
    datasets = [{"uri": "s3://data/part-1/train.jsonl"}, {"uri": "s3://data/part-2/train.jsonl", "columns": columns}]
    data = read(work, tokenizer, validation={"datasets": datasets})
    assert (data.rows.kept, data.rows.validation, len(data.validation or [])) == (3, 3, 3)
    assert [len(part) for part in data.validation_sets] == [1, 2]
    assert [row for part in data.validation_sets for row in part.to_list()] == (data.validation or data.train).to_list()


def test_a_validation_data_set_without_a_row_has_no_loss_and_is_named(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [SOUND] * 3), (None, [{"text": "a"}]), (None, [{"text": ""}]))
    entries = work.data_files()
    work.write_data_files([*entries[:2], entries[2].model_copy(update={"validation": 1})])
    datasets = [{"uri": f"s3://data/part-{number}/train.jsonl"} for number in (1, 2)]
    with pytest.raises(RunFailure, match=r"^EmptyDataset: no row of s3://data/part-2/train\.jsonl can be validated on"):
        read(work, tokenizer, validation={"datasets": datasets})


def test_an_empty_validation_file_is_an_empty_dataset(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [SOUND] * 3), (None, []))
    with pytest.raises(RunFailure, match=r"part-1/train\.jsonl can be used"):
        read(work, tokenizer, validation={"uri": "s3://data/part-1/train.jsonl"})


def test_a_fraction_of_the_rows_is_held_out(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [{"text": str(number)} for number in range(40)]))
    data = read(work, tokenizer, validation={"fraction": 0.1})
    assert (data.rows.kept, data.rows.validation) == (36, 4)
    held_out = {tokenizer.decode(example["input_ids"]) for example in data.validation or ()}
    assert not held_out & {tokenizer.decode(example["input_ids"]) for example in data.train}


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.99])
def test_a_fraction_holds_at_least_one_row_out_or_is_refused(work: Work, tokenizer: Any, fraction: float) -> None:
    given_files(work, (0, [SOUND]))
    with pytest.raises(RunFailure, match=r"1 row of .* can be used, and validation\.fraction needs 2") as failure:
        read(work, tokenizer, validation={"fraction": fraction})
    assert failure.value.failure is FailureClass.EMPTY_DATASET
    assert len(read(work, tokenizer).train) == 1
    given_files(work, (0, [SOUND] * 2))
    data = read(work, tokenizer, validation={"fraction": fraction})
    assert (data.rows.kept, data.rows.validation) == (1, 1)
