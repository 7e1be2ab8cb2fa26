"""The batches of rerankers: which passages a query is compared with; and the figures of a ranking."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tunesmith_runtime.data.encoders.texts import TextRole
from tunesmith_runtime.data.examples import IGNORED
from tunesmith_runtime.data.pair_template import PairTemplate
from tunesmith_runtime.train.trainers.ranking import NEGATIVE, NONE, POSITIVE, Joiner, ranking_figures

TEMPLATE = PairTemplate([1], [2], [3])
BLANK: dict[str, Any] = {"input_ids": [[0, 0]], "labels": [[IGNORED, IGNORED]], "columns": [None]}
"""What fills up the batches of several processes."""


def row(query: int, *passages: list[int], positives: int = 1) -> dict[str, Any]:
    """An encoded query with its passages, the first of them positive."""
    roles = [TextRole.FIRST, *[TextRole.POSITIVE] * (positives - 1), *[TextRole.NEGATIVE] * len(passages)]
    return {
        "input_ids": [[1, query, 2, *passage, 3] for passage in passages],
        "labels": [[IGNORED, IGNORED, IGNORED, *passage, IGNORED] for passage in passages],
        "columns": [str(role) for role in roles[: len(passages)]],
    }


def compared(rows: list[dict[str, Any]], in_batch: bool = True, most: int = 64) -> list[list[tuple[int, list[int]]]]:
    """Return role and tokens of each passage of each row of a batch, without those that fill up."""
    batch = Joiner(TEMPLATE, 0, most, in_batch)(rows)
    return [
        [(int(role), ids[mask.bool()].tolist()) for role, ids, mask in zip(*each, strict=True) if role != NONE]
        for each in zip(batch["role"], batch["input_ids"], batch["attention_mask"], strict=True)
    ]


def test_a_query_is_compared_with_its_passages_and_the_positives_of_the_other_rows() -> None:
    found = compared([row(10, [20], [30, 31]), row(11, [21, 22], [23], positives=2), BLANK])
    assert found == [
        [
            (POSITIVE, [1, 10, 2, 20, 3]),
            (NEGATIVE, [1, 10, 2, 30, 31, 3]),
            (NEGATIVE, [1, 10, 2, 21, 22, 3]),
            (NEGATIVE, [1, 10, 2, 23, 3]),
        ],
        [(POSITIVE, [1, 11, 2, 21, 22, 3]), (POSITIVE, [1, 11, 2, 23, 3]), (NEGATIVE, [1, 11, 2, 20, 3])],
        [],
    ]


def test_a_query_is_compared_with_its_passages_alone_without_negatives_of_other_rows() -> None:
    found = compared([row(10, [20], [30]), row(11, [21])], in_batch=False)
    assert found == [[(POSITIVE, [1, 10, 2, 20, 3]), (NEGATIVE, [1, 10, 2, 30, 3])], [(POSITIVE, [1, 11, 2, 21, 3])]]


def roles(rows: list[dict[str, Any]], **options: Any) -> list[list[int]]:
    return [[role for role, _ in each] for each in compared(rows, **options)]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([row(10, [20]), row(11, [20])], [[POSITIVE], [POSITIVE]]),
        ([row(10, [20]), row(10, [21])], [[POSITIVE], [POSITIVE]]),
        ([row(10, [20], [21]), row(11, [21])], [[POSITIVE, NEGATIVE], [POSITIVE, NEGATIVE]]),
        (
            [row(10, [20]), row(11, [21]), row(12, [21])],
            [[POSITIVE, NEGATIVE], [POSITIVE, NEGATIVE], [POSITIVE, NEGATIVE]],
        ),
        ([row(10, [20], [20], [21])], [[POSITIVE, NEGATIVE]]),
    ],
    ids=["equal positives", "equal queries", "own negative", "one passage twice", "negative that is the positive"],
)
def test_what_answers_a_query_is_no_negative_and_no_passage_counts_twice(
    rows: list[dict[str, Any]], expected: list[list[int]]
) -> None:
    assert roles(rows) == expected


def test_a_passage_that_does_not_fit_beside_a_query_is_left_out() -> None:
    rows = [row(10, [20]), row(11, [21, 22, 23])]
    assert roles(rows, most=6) == [[POSITIVE], [POSITIVE, NEGATIVE]]
    assert roles(rows, most=7) == [[POSITIVE, NEGATIVE], [POSITIVE, NEGATIVE]]


def test_a_passage_that_was_cut_ends_with_the_closing_tokens() -> None:
    cut = {"input_ids": [[1, 10, 2, 20, 21, 22]], "labels": [[-100, -100, -100, 20, 21, 22]], "columns": ["first"]}
    assert compared([cut]) == [[(POSITIVE, [1, 10, 2, 20, 21, 3])]]


def test_the_rank_of_a_row_is_that_of_its_best_positive_behind_negatives_of_equal_score() -> None:
    scores = torch.tensor([[1.0, 3.0, 2.0, 9.0], [1.0, 1.0, 0.0, 0.0], [5.0, 0.0, 0.0, 0.0], [2.0, 1.0, 0.5, 3.0]])
    is_positive = torch.tensor([[1, 0, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]).bool()
    is_negative = torch.tensor([[0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 1, 1, 0]]).bool()
    figures = ranking_figures(scores, is_positive, is_negative)  # the third row has no negative, and no rank
    assert figures["mrr"].tolist() == [0.5, 0.5, 1.0]
    assert figures["accuracy"].tolist() == [False, False, True]
