from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_runtime.answers.boxes import Corners, accuracy, boxes_of, iou, overlap, read_boxes

LENGTHS = st.integers(0, 2000)
BOXES = st.builds(
    lambda x, y, width, height: (float(x), float(y), float(x + width), float(y + height)),
    LENGTHS,
    LENGTHS,
    st.integers(1, 2000),
    st.integers(1, 2000),
)
LISTS = st.lists(BOXES, max_size=5)


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("The cat is at [10, 20, 30, 40].", [(10, 20, 30, 40)]),
        ("[10,20.5,30,40]", [(10, 20.5, 30, 40)]),
        ("(10, 20, 30, 40)", [(10, 20, 30, 40)]),
        ("[10\uff0c20\uff0c30\uff0c40]", [(10, 20, 30, 40)]),
        ("<|box_start|>(10,20),(30,40)<|box_end|>", [(10, 20, 30, 40)]),
        ("<|box_start|>(1,2),(3,4)<|box_end|><|box_start|>(5,6),(7,8)<|box_end|>", [(1, 2, 3, 4), (5, 6, 7, 8)]),
        (
            '```json\n[{"bbox_2d": [1, 2, 3, 4], "label": "2 dogs"},\n{"bbox_2d": [5, 6, 7, 8]}]\n```',
            [(1, 2, 3, 4), (5, 6, 7, 8)],
        ),
        ("<ref>cats</ref><box>[[1, 2, 3, 4], [5, 6, 7, 8]]</box>", [(1, 2, 3, 4), (5, 6, 7, 8)]),
        ("<|begin_of_box|>[[1,2,3,4]]<|end_of_box|>", [(1, 2, 3, 4)]),
        ("<box>1 2 3 4</box>", [(1, 2, 3, 4)]),
        ("[0.1, 0.25, 0.5, 1]", [(0.1, 0.25, 0.5, 1)]),
        ("[-5, 0, 1e2, 10]", [(-5, 0, 100, 10)]),
        ("[1, 2, 3]", []),
        ("[1, 2, 3, 4, 5]", []),
        ("1, 2, 3, 4", []),
        ("(1, 2) and (3, 4)", []),
        ("[1, 2, 3, 4", []),
        ("no box", []),
        ("", []),
    ],
)
def test_boxes_are_read_in_the_forms_of_models(text: str, boxes: list[Corners]) -> None:
    assert read_boxes(text) == boxes


@pytest.mark.parametrize(
    ("value", "boxes"),
    [
        ([1, 2, 3, 4], [(1, 2, 3, 4)]),
        ([[1, 2, 3, 4], [5, 6, 7, 8.5]], [(1, 2, 3, 4), (5, 6, 7, 8.5)]),
        ({"bbox_2d": [1, 2, 3, 4]}, [(1, 2, 3, 4)]),
        ("(1,2),(3,4)", [(1, 2, 3, 4)]),
        ([0.30000000000000004, 1e-05, 1, 1], [(0.30000000000000004, 1e-05, 1, 1)]),
        ([1, 2, 3], []),
        (None, []),
        (5, []),
        (object(), []),
    ],
)
def test_boxes_of_a_column_are_numbers_lists_or_text(value: object, boxes: list[Corners]) -> None:
    assert boxes_of(value) == boxes


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[1," * 50_000, "(1,2)," * 50_000, "<box>" + " " * 100_000, "9" * 100_000]
)
def test_a_text_that_repeats_itself_is_read_in_linear_time(text: str) -> None:
    begin = time.process_time()
    assert len(read_boxes(text)) in (0, 25_000)
    assert time.process_time() - begin < 2


@pytest.mark.parametrize(
    ("left", "right", "value"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1),
        ((0, 0, 10, 10), (5, 0, 15, 10), 50 / 150),
        ((0, 0, 10, 10), (5, 5, 15, 15), 25 / 175),
        ((0, 0, 10, 10), (2, 3, 4, 6), 6 / 100),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0),
        ((0, 0, 10, 10), (20, 20, 30, 30), 0),
        ((10, 10, 0, 0), (0, 0, 10, 10), 0),
        ((5, 5, 5, 9), (5, 5, 5, 9), 1),
        ((5, 5, 5, 9), (5, 5, 5, 8), 0),
    ],
)
def test_iou_is_the_shared_area_of_the_covered_one(left: Corners, right: Corners, value: float) -> None:
    assert iou(left, right) == pytest.approx(value)


@given(BOXES, BOXES)
def test_iou_is_symmetric_and_1_for_equal_boxes_alone(left: Corners, right: Corners) -> None:
    assert iou(left, right) == iou(right, left)
    assert 0 <= iou(left, right) <= 1
    assert iou(left, left) == 1
    assert (iou(left, right) == 1) == (left == right)


@given(BOXES, BOXES, st.floats(0.01, 100), st.floats(0.01, 100))
def test_iou_does_not_depend_on_the_size_of_the_picture(left: Corners, right: Corners, x: float, y: float) -> None:
    scaled = [(box[0] * x, box[1] * y, box[2] * x, box[3] * y) for box in (left, right)]
    assert iou(*scaled) == pytest.approx(iou(left, right), abs=1e-9)


A, B, C = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0), (40.0, 0.0, 50.0, 10.0)
HALF_A = (0.0, 0.0, 10.0, 5.0)


@pytest.mark.parametrize(
    ("predictions", "truths", "mean", "share"),
    [
        ([A], [A], 1, 1),
        ([HALF_A], [A], 0.5, 1),
        ([(0.0, 0.0, 10.0, 4.9)], [A], 0.49, 0),
        ([B, A], [A, B], 1, 1),
        ([A], [A, B], 0.5, 0.5),
        ([A, A], [A], 0.5, 0.5),
        ([A, A], [A, B], 0.5, 0.5),
        ([A, HALF_A], [A, B, C], 1 / 3, 1 / 3),
        ([A, (0.0, 0.0, 25.0, 10.0)], [A, B], (1 + 50 / 300) / 2, 0.5),
        ([], [A], 0, 0),
        ([A], [], 0, 0),
        ([], [], 1, 1),
    ],
)
def test_missing_and_superfluous_boxes_lower_the_score(
    predictions: list[Corners], truths: list[Corners], mean: float, share: float
) -> None:
    assert overlap(predictions, truths) == pytest.approx(mean)
    assert accuracy(predictions, truths) == pytest.approx(share)


def test_boxes_are_paired_for_the_largest_sum_not_greedily() -> None:
    truths = [(0.0, 0.0, 100.0, 1.0), (125.0, 0.0, 150.0, 1.0)]
    predictions = [(50.0, 0.0, 150.0, 1.0), (0.0, 0.0, 25.0, 1.0)]
    # the best single pair, 50/150, would leave two boxes that do not touch; the other two pairs have 25/100 each
    assert overlap(predictions, truths) == pytest.approx((0.25 + 0.25) / 2)


@given(LISTS, LISTS)
def test_scores_of_several_boxes_do_not_depend_on_their_order(
    predictions: list[Corners], truths: list[Corners]
) -> None:
    for score in (overlap, accuracy):
        assert 0 <= score(predictions, truths) <= 1
        assert score(predictions[::-1], truths) == pytest.approx(score(predictions, truths))
        assert score(truths, truths) == 1
