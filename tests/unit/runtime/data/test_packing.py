"""Packing: every row in one sequence, no sequence too long, little room left, the same for the same seed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_runtime.data.example_file import open_examples, write_examples
from tunesmith_runtime.data.examples import IGNORED, Example
from tunesmith_runtime.data.packing import PackedRows, best_fit

row_lengths = st.lists(st.integers(1, 32), max_size=200)


@given(lengths=row_lengths, seed=st.integers(0, 9))
def test_no_sequence_is_too_long_and_none_is_empty(lengths: list[int], seed: int) -> None:
    sequence_of = best_fit(lengths, 32, seed).tolist()
    tokens: Counter[int] = Counter()
    for length, sequence in zip(lengths, sequence_of, strict=True):
        tokens[sequence] += length
    assert sorted(tokens) == [*range(len(tokens))]
    assert all(count <= 32 for count in tokens.values())


@given(lengths=row_lengths)
def test_no_two_sequences_fit_into_one(lengths: list[int]) -> None:
    tokens: Counter[int] = Counter()
    for length, sequence in zip(lengths, best_fit(lengths, 32, 0).tolist(), strict=True):
        tokens[sequence] += length
    assert len(tokens) < 2 or sum(sorted(tokens.values())[:2]) > 32


def test_rows_that_fill_each_other_share_a_sequence() -> None:
    assert len(set(best_fit([20, 12, 16, 16, 31, 1, 32], 32, 0).tolist())) == 4


def test_the_seed_decides_and_alone() -> None:
    lengths = [7] * 100
    assert best_fit(lengths, 32, 3).tolist() == best_fit(lengths, 32, 3).tolist()
    assert best_fit(lengths, 32, 3).tolist() != best_fit(lengths, 32, 4).tolist()


def test_a_row_longer_than_a_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match="a row has 33 tokens, and a sequence at most 32"):
        best_fit([5, 33], 32, 0)


def packed(folder: Path, lengths: list[int], capacity: int) -> PackedRows:
    with write_examples(folder / "train.arrow") as writer:
        for row, length in enumerate(lengths):
            ids = [100 * row + at for at in range(length)]
            writer.write([Example(ids, ids)])
    return PackedRows.of(open_examples(folder / "train.arrow"), capacity, seed=1)


def test_a_sequence_holds_whole_rows_whose_first_tokens_have_no_label(tmp_path: Path) -> None:
    lengths = [5, 3, 8, 2, 6]
    rows = packed(tmp_path, lengths, 8)
    assert sum(rows.lengths) == sum(lengths)
    assert list(rows.lengths) == [len(rows[index]["input_ids"]) for index in range(len(rows))]
    found = []
    for index in range(len(rows)):
        ids, labels, at = rows[index]["input_ids"], rows[index]["labels"], 0
        for length in rows[index]["seq_lengths"]:
            row = ids[at : at + length]
            assert labels[at : at + length] == [IGNORED, *row[1:]]
            found.append(row)
            at += length
        assert at == len(ids)
    assert sorted(found) == [[100 * row + at for at in range(length)] for row, length in enumerate(lengths)]


def test_a_sequence_has_the_weights_of_its_rows(tmp_path: Path) -> None:
    with write_examples(tmp_path / "train.arrow") as writer:
        writer.write([Example([1, 2, 3], [1, 2, 3], weights=[1.0, 0.5, 0.5])])
        writer.write([Example([4, 5], [4, 5])])
    (sequence,) = PackedRows.of(open_examples(tmp_path / "train.arrow"), 8, seed=1)  # type: ignore[misc]
    of_token = dict(zip(sequence["input_ids"], sequence["weights"], strict=True))
    assert of_token == {1: 1.0, 2: 0.5, 3: 0.5, 4: 1.0, 5: 1.0}
