"""Weights and samples: which rows a pass has, and the counts in status."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.unit.runtime.data.loading import PARTS, given_files, numbered, read, texts, weighted
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.workdir import Work


def test_without_weights_each_row_is_used_once(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, numbered(0, 3)), (1, numbered(3, 300)))
    data = read(work, tokenizer, datasets=PARTS)
    assert data.rows.to_dict() == {"kept": 303}
    assert len(set(texts(tokenizer, data))) == len(data.train) == 303


def test_with_weights_a_pass_has_their_shares_and_status_has_the_counts(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, numbered(0, 3)), (1, numbered(3, 300)))
    data = read(work, tokenizer, datasets=weighted(1, 1))
    assert data.rows.to_dict() == {
        "kept": 303,
        "datasets": [
            {"index": 0, "rows": 3, "used": 152, "repeated": 149, "left": 0},
            {"index": 1, "rows": 300, "used": 151, "repeated": 0, "left": 149},
        ],
    }
    found = Counter(texts(tokenizer, data))
    small = {text: count for text, count in found.items() if int("".join(filter(str.isdigit, text))) < 3}
    assert sorted(small.values()) == [50, 51, 51]
    assert {count for text, count in found.items() if text not in small} == {1}
    assert (len(found), found.total()) == (154, 303)


def test_the_seed_decides_which_rows_are_left_out(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, numbered(0, 3)), (1, numbered(3, 30)))
    drawn = [
        Counter(texts(tokenizer, read(work, tokenizer, datasets=weighted(1, 1), training={"seed": seed})))
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_row_that_is_held_out_is_never_repeated(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, numbered(0, 6)), (1, numbered(6, 30)))
    data = read(work, tokenizer, datasets=weighted(1, 3), validation={"fraction": 0.25})
    held_out = {tokenizer.decode(example["input_ids"]) for example in data.validation or ()}
    assert len(held_out) == 9
    assert not held_out & set(texts(tokenizer, data))
    counts = data.rows.datasets or []
    assert sum(entry.rows for entry in counts) == sum(entry.used for entry in counts) == len(data.train) == 27
    assert [entry.used for entry in counts] == [7, 20]


def test_a_weight_of_a_data_set_without_rows_is_refused(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, numbered(0, 3)), (1, [{"text": " "}]))
    with pytest.raises(
        RunFailure, match=r"no row of s3://data/part-1/train\.jsonl can be trained on, and its weight is 2"
    ):
        read(work, tokenizer, datasets=weighted(1, 2))


def test_a_sample_is_drawn_from_all_rows_by_the_seed(work: Work, tokenizer: Any) -> None:
    given_files(work, (0, numbered(0, 100)), (0, numbered(100, 100)))
    dataset = {"uri": "s3://data/part-0/train.jsonl", "maxRows": 20, "sample": True}
    samples = [
        texts(tokenizer, read(work, tokenizer, datasets=[dataset], training={"seed": seed})) for seed in (1, 1, 2)
    ]
    assert samples[0] == samples[1] != samples[2]
    assert len(set(samples[0])) == 20
    numbers = [int("".join(filter(str.isdigit, text))) for text in samples[0]]
    assert numbers == sorted(numbers)
    assert max(numbers) >= 100
