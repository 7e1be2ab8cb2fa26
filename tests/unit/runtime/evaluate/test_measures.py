"""Answers about pictures are scored as their type says."""

from __future__ import annotations

import pytest

from tunesmith_api.evaljob import PICTURE_TYPES, BenchmarkType
from tunesmith_runtime.evaluate.measures import MEANINGS, MEASURES

VQA, CAPTION, OCR, GROUNDING = (
    MEASURES[kind] for kind in (BenchmarkType.VQA, BenchmarkType.CAPTION, BenchmarkType.OCR, BenchmarkType.GROUNDING)
)


@pytest.mark.parametrize(
    ("answer", "references", "accuracy"),
    [
        ("Two.", ["2"], 1.0),
        ("a red ball", ["ball", "red ball"], 1.0),
        ("blue", ["red"], 0.0),
        ("", ["red"], 0.0),
        ("red", ["red"] * 2 + ["blue"] * 8, 2 / 3),
    ],
)
def test_a_short_answer_is_right_if_a_reference_or_three_of_ten_people_give_it(
    answer: str, references: list[str], accuracy: float
) -> None:
    assert VQA.rate(answer, references) == {"accuracy": pytest.approx(accuracy)}


def test_captions_are_scored_one_by_one_and_together() -> None:
    answers = ["a dog runs on the grass", "two cats sleep"]
    references = [["a dog runs on the grass", "a dog"], ["a red car stands there"]]
    assert [CAPTION.rate(*pair)["rouge_l"] for pair in zip(answers, references, strict=True)] == [1.0, 0.0]
    together = CAPTION.rate_all(answers, references)
    assert together.keys() == {"cider", "bleu"}
    assert 0 < together["bleu"] < CAPTION.rate_all([each[0] for each in references], references)["bleu"] == 1.0
    assert together["cider"] > CAPTION.rate_all(answers[::-1], references)["cider"] == 0.0


def test_text_is_compared_with_the_closest_reference() -> None:
    assert OCR.rate("total 12", ["Total", "total 13"]) == {"edit_similarity": 1 - 1 / 8}
    assert OCR.rate_all(["total 12", "x"], [["Total", "total 13"], ["xy"]]) == {"character_error_rate": 2 / 10}


@pytest.mark.parametrize(
    ("answer", "reference", "scores"),
    [
        ("[0, 0, 10, 10]", "[0, 0, 10, 10]", (1.0, 1.0)),
        ("It is at (0,0),(10,10).", "[[0, 0, 10, 10]]", (1.0, 1.0)),
        ("[0, 0, 10, 10]", "[0, 0, 10, 20]", (1.0, 0.5)),
        ("[0, 0, 10, 10]", "[0, 0, 10, 30]", (0.0, 1 / 3)),
        ("[0, 0, 10, 10]", "[0, 0, 10, 10] and [20, 20, 30, 30]", (0.5, 0.5)),
        ("in the corner", "[0, 0, 10, 10]", (0.0, 0.0)),
    ],
)
def test_a_box_is_right_from_half_an_overlap_on(answer: str, reference: str, scores: tuple[float, float]) -> None:
    rated = GROUNDING.rate(answer, [reference])
    assert (rated["iou50"], rated["iou"]) == pytest.approx(scores)


@pytest.mark.parametrize(
    ("kind", "readable", "unreadable"),
    [
        (BenchmarkType.VQA, "no", " a … ? "),
        (BenchmarkType.CAPTION, "?", " \n"),
        (BenchmarkType.OCR, "?", ""),
        (BenchmarkType.GROUNDING, "at [1, 2, 3, 4]", "at [1, 2]"),
    ],
)
def test_an_answer_without_what_is_asked_for_is_unreadable(kind: BenchmarkType, readable: str, unreadable: str) -> None:
    assert MEASURES[kind].is_readable(readable)
    assert not MEASURES[kind].is_readable(unreadable)


def test_every_type_has_a_measure_and_every_metric_a_unit_in_reports() -> None:
    assert MEASURES.keys() == PICTURE_TYPES
    metrics = {
        metric
        for measure in MEASURES.values()
        for metric in (*measure.rate("[1, 2, 3, 4]", ["[1, 2, 3, 4]"]), *measure.rate_all(["a"], [["a"]]))
    }
    assert metrics == MEANINGS.keys()
    assert {measure.primary for measure in MEASURES.values()} <= metrics
