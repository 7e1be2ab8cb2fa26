"""Rows that are refused or dropped: named by file and line, counted by reason, and shown in dropped.jsonl."""

from __future__ import annotations

import copy
import errno
import re
from typing import Any

import pytest

from tests.unit.runtime.data.loading import (
    ALL_RECORDS,
    ANSWERED,
    ASKED,
    NUMBER,
    SOUND,
    chat,
    dropped,
    given_files,
    read,
    with_template,
)
from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_runtime.data import row_encoder
from tunesmith_runtime.data.encode import Encoder
from tunesmith_runtime.data.load import StreamedData, load_stream
from tunesmith_runtime.data.row_encoder import Learnable
from tunesmith_runtime.data.stream import Place
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.workdir import Work


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


@pytest.mark.parametrize(
    "error",
    [MemoryError(), OSError(errno.ENOSPC, "No space left on device"), ImportError("no jinja2"), KeyboardInterrupt()],
)
def test_a_fault_of_the_machine_is_no_bad_row(work: Work, tokenizer: Any, error: BaseException) -> None:
    broken = copy.deepcopy(tokenizer)

    def fail(*_: Any, **__: Any) -> None:
        raise error

    broken.apply_chat_template = fail
    given_files(work, (0, [chat(ASKED, ANSWERED)]))
    with pytest.raises(type(error)):
        read(work, broken)


class PanicException(BaseException):
    """As tokenizers raises where its Rust code panics."""


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), IndexError(), RecursionError(), OverflowError(), ValueError("x"), TypeError(), PanicException("x")],
)
def test_whatever_a_library_raises_on_a_row_names_its_line(work: Work, tokenizer: Any, error: BaseException) -> None:
    broken = copy.deepcopy(tokenizer)

    def fail(*_: Any, **__: Any) -> None:
        raise error

    broken.apply_chat_template = fail
    given_files(work, (0, [chat(ASKED), chat(ASKED, ANSWERED)]))
    words = rf"^BadRow: train\.jsonl line 2: is refused by the model's chat template: {type(error).__name__}"
    with pytest.raises(RunFailure, match=words):
        read(work, broken)


def test_bad_rows_are_dropped_and_counted_with_on_bad_row_drop(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [b"{", {"id": 7}, *[SOUND] * 8, NUMBER]))
    rows = read(work, tokenizer, onBadRow="Drop", maxBadShare=0.3).rows
    assert rows.to_dict() == {"kept": 8, "dropped": [{"reason": "BadRow", "count": 3}]}
    first, second, third = dropped(work)
    assert (first["reason"], first["file"], first["place"]) == ("BadRow", "s3://data/part-0/train.jsonl", "line 1")
    assert "is not JSON" in first["sentence"]
    assert "is in no known format: its keys are id" in second["sentence"]
    assert (third["place"], third["sentence"]) == ("line 11", "'prompt' is a number; expected a string")
    assert third["row"] == '{"prompt": 2, "completion": "4"}'


@pytest.mark.parametrize(("share", "most"), [({}, "0.1"), ({"maxBadShare": 0.25}, "0.25")])
def test_too_many_bad_rows_fail_with_counts_and_the_first_ones(
    work: Work, tokenizer: Any, share: dict[str, float], most: str
) -> None:
    given_files(work, (0, [SOUND, NUMBER, SOUND, NUMBER]))
    words = rf"2 of 4 rows of s3://data/part-0/train\.jsonl are bad, and maxBadShare is {most}; the first: train\.jsonl line 2: "
    with pytest.raises(RunFailure, match=words) as failure:
        read(work, tokenizer, onBadRow="Drop", **share)
    assert failure.value.failure is FailureClass.BAD_ROW
    assert [example["place"] for example in dropped(work)] == ["line 2", "line 4"]


def test_the_share_of_bad_rows_counts_for_each_data_set(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [SOUND] * 20), (1, [SOUND, NUMBER]))
    uris = ("s3://data/part-0/train.jsonl", "s3://data/part-1/train.jsonl")
    with pytest.raises(RunFailure, match=r"1 of 2 rows of s3://data/part-1/train\.jsonl"):
        read(work, tokenizer, onBadRow="Drop", datasets=[{"uri": uri} for uri in uris])


def test_the_first_rows_of_each_reason_are_kept_and_no_more(work: Work, tokenizer: Any) -> None:
    empty = {"prompt": "x" * 1000, "completion": ""}
    given_files(work, (0, [SOUND, {"prompt": "2 " * 50, "completion": "4"}, *[empty] * 40]))
    assert read(work, tokenizer, training={"maxLength": 32}).rows.kept == 1
    examples = dropped(work)
    assert [example["reason"] for example in examples] == ["TooLong", *["EmptyAnswer"] * 5]
    assert re.fullmatch(r"has \d+ tokens, and training\.maxLength is 32", examples[0]["sentence"])
    assert examples[1]["sentence"] == "an answer that would be learned has no text"
    assert max(len(example["row"]) for example in examples) < 400


def test_a_failure_of_another_class_is_no_bad_row(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [SOUND, chat(ASKED, ANSWERED)]), (1, [chat(ASKED, ANSWERED)]))
    uris = ("s3://data/part-0/train.jsonl", "s3://data/part-1/train.jsonl")
    with pytest.raises(RunFailure) as failure:
        read(
            work, with_template(tokenizer, ""), datasets=[{"uri": uri} for uri in uris], onBadRow="Drop", maxBadShare=1
        )
    assert failure.value.failure is FailureClass.CHAT_TEMPLATE_MISSING


def test_duplicates_are_dropped_where_drop_names_them(work: Work, tokenizer: Any) -> None:
    again = {"prompt": "2  +\n2 =", "completion": " 4 ", "id": 7}
    given_files(work, (0, [SOUND, again, {**SOUND, "completion": " 5"}]), (1, [SOUND, {"text": "c"}]), (None, [SOUND]))
    spec = {"datasets": [{"uri": f"s3://data/part-{part}/train.jsonl"} for part in (0, 1)]}
    assert read(work, tokenizer, **{**spec, "datasets": spec["datasets"][:1]}).rows.kept == 3
    given_files(work, (0, [SOUND, again, {**SOUND, "completion": " 5"}]), (1, [SOUND, SOUND]))
    rows = read(work, tokenizer, drop=["Duplicate"], **spec).rows
    assert rows.to_dict()["dropped"] == [{"reason": "Duplicate", "count": 3}]
    assert rows.kept == 2
    assert [example["place"] for example in dropped(work)] == ["line 2", "line 1", "line 2"]


def test_a_training_row_that_is_a_validation_row_is_the_duplicate(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [SOUND, {**SOUND, "completion": " 5"}]), (None, [SOUND]))
    rows = read(work, tokenizer, drop=["Duplicate"], validation={"uri": "s3://data/part-1/train.jsonl"}).rows
    assert (rows.kept, rows.validation) == (1, 1)


def test_training_rows_with_a_question_of_an_evaluation_are_dropped_and_shown(work: Work, tokenizer: Any) -> None:
    other = {**SOUND, "prompt": "2 + 3 ="}
    given_files(work, (0, [other, SOUND]), (None, [SOUND]), (None, [{"question": "2+2="}]))
    files = work.data_files()
    work.write_data_files([*files[:2], files[2].model_copy(update={"evaluation": 0})])
    spec = {"validation": {"uri": "s3://data/part-1/train.jsonl"}, "decontaminate": [{"uri": "s3://tests/qa.jsonl"}]}
    rows = read(work, tokenizer, **spec).rows
    assert (rows.kept, rows.validation) == (1, 1)
    assert rows.to_dict()["dropped"] == [{"reason": "Contaminated", "count": 1}]
    (shown,) = dropped(work)
    assert (shown["place"], shown["sentence"]) == ("line 2", "shares with a question: 2 + 2 =")


def streamed(work: Work, tokenizer: Any, **spec: Any) -> StreamedData:
    """The rows of the first file as a stream."""
    made = {
        "model": {"uri": "s3://models/base"},
        "datasets": [{"uri": "s3://data/part-0/train.jsonl"}],
        "training": {"streaming": True, "maxSteps": 1},
        **spec,
    }
    job = FineTuneJobSpec.model_validate(made)
    encoder = Encoder.of(tokenizer, frozenset([tokenizer.eos_token_id]), job.training)
    learnable = Learnable(job.method, ALL_RECORDS)
    return load_stream(
        work, job, encoder, learnable, lambda examples, _: [{"input_ids": []}] * len(examples), is_leader=True
    )


def test_a_stream_drops_rows_with_a_question_of_an_evaluation(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [SOUND, {**SOUND, "prompt": "2 + 3 ="}]), (None, [SOUND]))
    files = work.data_files()
    work.write_data_files([files[0], files[1].model_copy(update={"evaluation": 0})])
    rows = streamed(work, tokenizer, decontaminate=[{"uri": "s3://tests/qa.jsonl"}])
    assert len(next(rows.stream.windows(Place()))[1]) == 1
    assert rows.rows.to_dict()["dropped"] == [{"reason": "Contaminated", "count": 1}]


def test_a_stream_with_too_many_bad_rows_ends_before_its_last_row(
    work: Work, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_encoder, "SHARE_ROWS", 4)
    given_files(work, (0, [SOUND, *[NUMBER] * 99]))
    rows = streamed(work, tokenizer, onBadRow="Drop", maxBadShare=0.5)
    with pytest.raises(RunFailure, match=r"^BadRow: 3 of 4 rows of s3://data/part-0/train\.jsonl are bad"):
        next(rows.stream.windows(Place()))
    assert [row["place"] for row in dropped(work)] == ["line 2", "line 3", "line 4"]
