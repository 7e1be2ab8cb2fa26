r"""Boxes that a model writes: how they are read and compared. Pure functions.

A box is x1, y1, x2, y2: its left, upper, right and lower side, in units that both sides of a comparison share.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

Corners = tuple[float, float, float, float]

NUMBER = re.compile(r"-?[0-9]{1,9}(?:\.[0-9]{1,20})?(?:[eE][-+]?[0-9]{1,2})?")
_N, _GAP, _COMMA = NUMBER.pattern, r"\s{0,20}", r"\s{0,20}[,\uff0c]\s{0,20}"
_FOUR = rf"{_GAP}{_N}{_COMMA}{_N}{_COMMA}{_N}{_COMMA}{_N}{_GAP}"
_POINT = rf"\({_GAP}{_N}{_COMMA}{_N}{_GAP}\)"
BOX = re.compile(
    rf"\[{_FOUR}\]|\({_FOUR}\)|{_POINT}{_GAP}[,\uff0c]?{_GAP}{_POINT}|<box>{_GAP}{_N}(?:\s{{1,20}}{_N}){{3}}{_GAP}</box>"
)
"""Four numbers in brackets, two corners in brackets each, or four numbers in the tag of MiniCPM-V."""

RIGHT = 0.5
"""IoU from which a box is right, as in RefCOCO (Yu et al., 2016, https://arxiv.org/abs/1608.00272)."""
MOST = 1000
"""Number of boxes of an answer that are compared; it bounds the time for models that repeat themselves."""


def read_boxes(text: str) -> list[Corners]:
    """Return the boxes in a text, in their order; empty if there are none.

    `[x1, y1, x2, y2]` and `(x1, y1), (x2, y2)` are read wherever they stand: in prose, in a list of lists (InternVL,
    GLM-V), between the tokens of Qwen2-VL, and in the JSON of Qwen2.5-VL and Qwen3-VL (`{"bbox_2d": […]}`).
    """
    return [_corners(match[0]) for match in BOX.finditer(text)]


def boxes_of(value: Any) -> list[Corners]:
    """Return the boxes in a column of a row: four numbers, a list of boxes, an object with boxes, or a text."""
    try:
        return read_boxes(value if isinstance(value, str) else json.dumps(value))
    except (TypeError, ValueError, RecursionError):
        return []


def iou(left: Corners, right: Corners) -> float:
    """Return the area that two boxes share divided by the area that they cover, from 0 to 1 for equal boxes.

    A box whose second corner is left of or above its first has no area. Boxes without area have 1 if they are equal,
    else 0.
    """
    width = min(left[2], right[2]) - max(left[0], right[0])
    height = min(left[3], right[3]) - max(left[1], right[1])
    shared = width * height if width > 0 and height > 0 else 0.0
    covered = _area(left) + _area(right) - shared
    return min(1.0, shared / covered) if covered else float(left == right)


def overlap(predictions: Sequence[Corners], truths: Sequence[Corners]) -> float:
    """Return the mean IoU of the boxes, from 0 to 1.

    Predicted and true boxes are matched one to one so that the sum of their IoU is largest; unmatched boxes count as 0. With
    one box on either side it is their IoU, and without boxes on both sides it is 1.
    """
    return _mean(predictions, truths, lambda value: value)


def accuracy(predictions: Sequence[Corners], truths: Sequence[Corners], threshold: float = RIGHT) -> float:
    """Return the share of boxes that are found, from 0 to 1: those with an IoU of `threshold` or more.

    Boxes are paired as in `overlap`; missing and superfluous boxes count as wrong. With one box on either side it is 1 or
    0, and its mean over the rows is the accuracy at IoU 0.5 of RefCOCO.
    """
    return _mean(predictions, truths, lambda value: float(value >= threshold))


def _mean(predictions: Sequence[Corners], truths: Sequence[Corners], rate: Callable[[float], float]) -> float:
    """Return the largest sum of rated IoUs over pairs of boxes, divided by the larger number of boxes."""
    if not predictions or not truths:
        return float(len(predictions) == len(truths))
    values = [[rate(iou(left, right)) for right in truths[:MOST]] for left in predictions[:MOST]]
    return _largest_sum(values) / max(len(predictions), len(truths))


def _largest_sum(values: Sequence[Sequence[float]]) -> float:
    """Return the largest sum of values of which no two share a row or a column."""
    if len(values) == 1:
        return max(values[0])
    if len(values[0]) == 1:
        return max(row[0] for row in values)
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(values, maximize=True)
    return float(sum(values[row][column] for row, column in zip(rows, columns, strict=True)))


def _corners(text: str) -> Corners:
    x1, y1, x2, y2 = map(float, NUMBER.findall(text))
    return x1, y1, x2, y2


def _area(box: Corners) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])
