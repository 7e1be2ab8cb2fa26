"""Examples that are too long: what is kept of them, and that no part of an answer is learned without its prompt."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tunesmith_runtime.data.examples import IGNORED, Example, Turn, join_turns, keep_end, keep_start, pieces

labelled = st.lists(st.booleans(), min_size=1, max_size=60).map(
    lambda marks: Example([*range(len(marks))], [at if mark else IGNORED for at, mark in enumerate(marks)])
)


@given(example=labelled, length=st.integers(8, 40))
def test_pieces_hold_every_token_once(example: Example, length: int) -> None:
    made = pieces(example, length)
    assert [token for piece in made for token in piece.input_ids] == example.input_ids
    assert [label for piece in made for label in piece.labels] == example.labels
    assert all(len(piece.input_ids) <= length for piece in made)
    assert all(len(piece.input_ids) > 1 for piece in made) or len(example.input_ids) == 1


@given(example=labelled, length=st.integers(8, 40))
def test_the_end_of_an_example_never_begins_with_an_answer(example: Example, length: int) -> None:
    kept = keep_end(example, length)
    assert len(kept.input_ids) <= length
    assert kept.input_ids == example.input_ids[len(example.input_ids) - len(kept.input_ids) :]
    if len(kept.input_ids) < len(example.input_ids):
        assert kept.labels[:1] in ([], [IGNORED])
    if len(example.input_ids) <= length:
        assert kept == example


@given(example=labelled, length=st.integers(8, 40))
def test_a_part_of_an_example_keeps_the_weights_of_its_tokens(example: Example, length: int) -> None:
    weighted = replace(example, weights=[float(token) for token in example.input_ids])
    for keep in (keep_start, keep_end):
        assert keep(weighted, length).weights == keep(example, length).input_ids


def test_a_turn_has_its_weight_behind_those_before() -> None:
    turns = [Turn([1], [2, 3], 2), Turn([1, 2, 3, 4], [5], 1, weight=0.5), Turn([9], [5], 1)]
    assert [example.weights for example in join_turns(turns)] == [[1, 1, 1, 0.5, 0.5], None]


def test_an_answer_that_would_begin_the_end_is_left_out() -> None:
    example = Example([*range(12)], [IGNORED, 1, 2, 3, 4, IGNORED, IGNORED, 7, 8, 9, 10, 11])
    assert keep_end(example, 9) == Example([*range(5, 12)], [IGNORED, IGNORED, 7, 8, 9, 10, 11])
    assert keep_end(example, 4) == Example([], [])
    assert keep_start(example, 3) == Example([0, 1, 2], [IGNORED, 1, 2])
