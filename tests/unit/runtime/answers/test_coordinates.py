from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.answers.boxes import iou, read_boxes
from tunesmith_runtime.answers.coordinates import (
    FAMILIES,
    Pixels,
    Size,
    Thousandths,
    decode,
    encode,
    family_of,
)
from tunesmith_runtime.data.records import Box
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.errors import RunFailure

SOURCE, HALVED = Size(2000, 1000), Size(1000, 500)
BOX = Box((1000, 500, 1200, 700), is_relative=False)
SHARES = Box((0.5, 0.5, 0.6, 0.7), is_relative=True)
SIDES = st.integers(1, 8000)


@pytest.mark.parametrize("box", [BOX, SHARES])
def test_a_box_is_written_in_the_units_of_the_family(box: Box) -> None:
    assert encode(box, SOURCE, Pixels().span(HALVED)) == (500, 250, 600, 350)
    assert encode(box, SOURCE, Pixels().span(SOURCE)) == (1000, 500, 1200, 700)
    assert encode(box, SOURCE, Thousandths().span(HALVED)) == (500, 500, 600, 700)


@pytest.mark.parametrize(
    ("model_type", "text"),
    [
        ("qwen2_vl", "<|box_start|>(500,500),(600,700)<|box_end|>"),
        ("qwen2_5_vl", "[500, 250, 600, 350]"),
        ("qwen3_vl", "[500, 500, 600, 700]"),
        ("qwen3_vl_moe", "[500, 500, 600, 700]"),
        ("internvl", "<box>[[500, 500, 600, 700]]</box>"),
        ("internvl_chat", "<box>[[500, 500, 600, 700]]</box>"),
        ("glm4v", "<|begin_of_box|>[[500,500,600,700]]<|end_of_box|>"),
        ("glm4v_moe", "<|begin_of_box|>[[500,500,600,700]]<|end_of_box|>"),
        ("deepseek_vl_v2", "<|det|>[[500, 500, 599, 699]]<|/det|>"),
    ],
)
def test_every_family_writes_the_box_in_its_own_form(model_type: str, text: str) -> None:
    assert family_of(model_type).write(BOX, SOURCE, HALVED) == text


def test_the_cases_name_every_family() -> None:
    [mark] = test_every_family_writes_the_box_in_its_own_form.pytestmark  # type: ignore[attr-defined]
    assert {model_type for model_type, _ in mark.args[1]} == set(FAMILIES)


@st.composite
def pictures(draw: st.DrawFn) -> tuple[Box, Size, Size]:
    """A box with area within a picture, the size of the picture, and the size that a processor resizes it to."""
    source, resized = (Size(draw(SIDES), draw(SIDES)) for _ in range(2))
    x1, y1 = draw(st.integers(0, source.width - 1)), draw(st.integers(0, source.height - 1))
    x2, y2 = draw(st.integers(x1 + 1, source.width)), draw(st.integers(y1 + 1, source.height))
    return Box((x1, y1, x2, y2), is_relative=False), source, resized


@given(st.sampled_from(sorted(FAMILIES)), pictures())
def test_a_perfect_answer_has_an_iou_of_1_at_every_size(model_type: str, case: tuple[Box, Size, Size]) -> None:
    family, (box, source, resized) = FAMILIES[model_type], case
    span = family.convention.span(resized)
    [answer] = read_boxes(family.write(box, source, resized))
    x1, y1, x2, y2 = encode(box, source, span)
    assert iou(answer, (x1, y1, x2, y2)) == 1
    half = [source.width / span.width / 2, source.height / span.height / 2] * 2
    for found, true, most in zip(decode(answer, source, span), box.coordinates, half, strict=True):
        assert abs(found - true) <= most + 1e-6


@given(pictures())
def test_pixels_and_shares_of_one_box_are_written_alike(case: tuple[Box, Size, Size]) -> None:
    box, source, resized = case
    sides = [source.width, source.height] * 2
    shares = Box(tuple(value / side for value, side in zip(box.coordinates, sides, strict=True)), is_relative=True)
    assert encode(shares, source, resized) == encode(box, source, resized)


def test_a_model_that_points_in_source_pixels_is_not_right_where_the_picture_was_resized() -> None:
    true = encode(BOX, SOURCE, HALVED)
    assert iou((1000, 500, 1200, 700), (true[0], true[1], true[2], true[3])) == 0
    assert decode((500, 250, 600, 350), SOURCE, HALVED) == (1000, 500, 1200, 700)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (
            Box((1000, 500, 2001, 700), False),
            r"box \[1000, 500, 2001, 700\] \(pixels\) is not within the picture of 2000 x 1000 pixels",
        ),
        (Box((0, 0, 10, 1001), False), "is not within the picture"),
        (Box((-1, 0, 10, 10), False), "is not within the picture"),
        (Box((0.5, 0.5, 1.1, 1), True), r"\(shares\) is not within the picture"),
        (Box((10, 10, 5, 20), False), "has a second corner left of or above its first"),
        (Box((10, 10, 20, 5), False), "has a second corner left of or above its first"),
        (Box((3000, 10), False), "is not within the picture"),
    ],
)
def test_a_box_beside_the_picture_is_a_bad_row(box: Box, message: str) -> None:
    with pytest.raises(RowError, match=message) as error:
        encode(box, SOURCE, HALVED)
    assert error.value.hint


def test_a_share_that_is_rounded_up_is_the_edge_of_the_picture() -> None:
    assert encode(Box((0, 0, 1 + 1e-9, 1), True), SOURCE, Size(1000, 1000)) == (0, 0, 1000, 1000)


def test_a_point_has_coordinates_and_no_text_of_a_box() -> None:
    point = Box((500, 250), False)
    assert encode(point, SOURCE, HALVED) == (250, 125)
    with pytest.raises(RowError, match="is a point; expected a box"):
        FAMILIES["qwen3_vl"].write(point, SOURCE, HALVED)


def test_a_family_whose_coordinates_are_not_known_is_refused_with_those_that_are() -> None:
    with pytest.raises(
        RunFailure, match=r"model_type 'florence2', whose coordinates of boxes are not known.*qwen2_5_vl"
    ) as failure:
        family_of("florence2")
    assert failure.value.failure is FailureClass.BAD_SPEC
