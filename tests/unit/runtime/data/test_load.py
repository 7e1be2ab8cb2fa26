"""Reading data files: every row is used, counted as dropped, or refused with its file and line."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.runtime.data.loading import ANSWERED, ASKED, SOUND, chat, given_files, read
from tunesmith_api.failures import FailureClass
from tunesmith_runtime.data.records import Continuation, PlainText
from tunesmith_runtime.data.row_counts import MAX_KEYS, OTHER_KEYS
from tunesmith_runtime.data.text_encoder import PIECE
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.workdir import Work


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


def test_a_data_set_of_dropped_rows_is_refused_with_their_reasons(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [{"prompt": "2", "completion": ""}] * 3))
    with pytest.raises(RunFailure, match="dropped 3 EmptyAnswer"):
        read(work, tokenizer)


def test_data_sets_are_read_in_order_each_in_its_own_format(work: Work, tokenizer: Any) -> None:
    given_files(work, (1, [{"text": "c"}]), (0, [{"prompt": "a", "completion": "b"}]))
    data = read(
        work, tokenizer, datasets=[{"uri": "s3://data/part-1/train.jsonl"}, {"uri": "s3://data/part-0/train.jsonl"}]
    )
    assert [tokenizer.decode(example["input_ids"]) for example in data.train] == ["ab<|im_end|>", "c<|im_end|>"]


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


@pytest.mark.parametrize(
    ("form", "row", "refused"),
    [
        ("messages", chat(ASKED, ANSWERED), "datasets[].format messages"),
        ("auto", SOUND, "the row is of format promptCompletion"),
        ("preference", {"chosen": "a", "rejected": "b"}, "datasets[].format preference"),
        ("auto", {"prompt": "a", "chosen": "a", "rejected": "b"}, "the row is of format preference"),
        ("auto", {"anchor": "a", "positive": "b"}, "the row is of format embedding"),
    ],
)
def test_rows_of_a_record_that_the_method_does_not_learn_from_are_refused(
    work: Work, tokenizer: Any, form: str, row: dict[str, Any], refused: str
) -> None:
    given_files(work, (0, [row]))
    dataset = {"uri": "s3://data/part-0/train.jsonl", "format": form}
    with pytest.raises(RunFailure) as failure:
        read(work, tokenizer, learns_from=frozenset({PlainText}), datasets=[dataset])
    assert failure.value.failure is FailureClass.BAD_SPEC
    assert f"{refused}: method sft learns from text" in failure.value.message
    assert (failure.value.hint or "").endswith("to its name or to auto: text")


def test_a_record_that_the_method_does_not_learn_from_is_refused_by_its_line(work: Work, tokenizer: Any) -> None:
    turns = {"prompt": [{"role": "user", "content": "2?"}], "completion": [{"role": "assistant", "content": "4"}]}
    given_files(work, (0, [SOUND, turns]))
    words = r"^BadSpec: train\.jsonl line 2: the row is a Conversation of format promptCompletion"
    with pytest.raises(RunFailure, match=words):
        read(work, tokenizer, learns_from=frozenset({Continuation}))


def test_a_method_reads_the_rows_that_yield_its_records(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [{"text": "a"}]))
    assert read(work, tokenizer, learns_from=frozenset({PlainText})).rows.kept == 1


def test_keys_that_are_not_read_are_counted(work: Work, tokenizer: Any) -> None:
    row = chat({"role": "user", "content": "kiwi?", "stamp": 5}, ANSWERED, id=7, prompt="kiwi?", url=None)
    given_files(work, (0, [row, chat(ASKED, ANSWERED, id=8)]))
    assert read(work, tokenizer).rows.to_dict()["ignoredKeys"] == [
        {"key": "id", "count": 2},
        {"key": "messages[].stamp", "count": 1},
        {"key": "prompt", "count": 1},
    ]


def test_keys_beyond_the_limit_are_counted_together(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [{**SOUND, **{f"key{number:02}": 1 for number in range(20)}, "x" * 10_000: 1}]))
    keys = read(work, tokenizer).rows.ignored_keys or []
    assert len(keys) == MAX_KEYS
    assert keys[-1].to_dict() == {"key": OTHER_KEYS, "count": 21 - (MAX_KEYS - 1)}
    assert max(len(entry.key) for entry in keys) <= 60


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (chat(ASKED, ANSWERED), SOUND, r"line 2: has no 'messages'; its keys are prompt, completion"),
        (SOUND, {"prompt": "2", "completion": None}, r"line 2: 'completion' is null"),
        ({"text": "a"}, {"conversations": []}, r"line 2: has no 'text'; its keys are conversations"),
        ({"text": "a"}, {}, r"line 2: has no 'text'; its keys are none"),
    ],
)
def test_a_row_of_another_format_than_the_first_is_named(
    work: Work, tokenizer: Any, first: dict[str, Any], second: dict[str, Any], words: str
) -> None:
    given_files(work, (0, [first, second]))
    with pytest.raises(RunFailure, match=words) as failure:
        read(work, tokenizer)
    assert failure.value.failure is FailureClass.BAD_ROW


def test_rows_that_are_all_too_long_are_refused_with_their_lengths(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, [{"text": "2 " * 50}, {"text": "2 " * 100}]))
    with pytest.raises(
        RunFailure, match=r"2 TooLong; rows have (\d+) to (\d+) tokens, and training\.maxLength is 32"
    ) as failure:
        read(work, tokenizer, training={"maxLength": 32})
    hint = failure.value.hint or ""
    assert hint.startswith("set spec.training.maxLength to ")
    longest = int("".join(filter(str.isdigit, hint)))
    assert read(work, tokenizer, training={"maxLength": longest}).rows.kept == 2


def test_a_row_of_millions_of_tokens_is_dropped_by_its_beginning(work: Work, tokenizer: Any) -> None:
    longest = 0

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

        def __call__(self, text: str, **options: Any) -> Any:
            nonlocal longest
            longest = max(longest, len(text))
            return tokenizer(text, **options)

    given_files(work, (0, [{"text": "2 " * (1 << 21)}, {"prompt": None, "text": "+ 2" * 400}]))
    with pytest.raises(RunFailure, match=r"2 TooLong; rows have \d{3,4} to more than 100000 tokens") as failure:
        read(work, Counting(), training={"maxLength": 32})
    assert longest <= 2 * PIECE
    assert (failure.value.hint or "").startswith("set spec.training.maxLength to ")


def test_a_long_row_is_cut_as_one_that_was_tokenized_whole(work: Work, tokenizer: Any) -> None:
    text = "What is a kiwi? (17) fruit\n" * (PIECE // 9)
    given_files(work, (0, [{"text": text}]))
    data = read(work, tokenizer, training={"maxLength": 64, "truncation": "truncate"})
    assert data.train[0]["input_ids"] == tokenizer(text[:1000], add_special_tokens=False)["input_ids"][:64]
