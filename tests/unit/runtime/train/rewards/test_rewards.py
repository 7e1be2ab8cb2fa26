"""Rewards: what each type makes of a completion."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from tunesmith_api.failures import FailureClass
from tunesmith_api.rewards import Match, Reward, RewardType
from tunesmith_runtime.data.records import Prompt
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.rewards import SCORERS, Completion
from tunesmith_runtime.workdir import Work

if TYPE_CHECKING:
    from tunesmith_runtime.train.methods.base import Setup


def scored(text: str, tokens: int = 1, columns: dict[str, Any] | None = None, **reward: Any) -> float:
    settings = Reward.model_validate({"name": "r", **reward})
    rate = SCORERS[settings.type].open(settings, cast("Setup", None))  # these types read nothing of a setup
    [value] = rate([Completion(text, tokens, 100, Prompt("", columns=columns or {}))])
    return value


def test_every_type_of_the_api_is_implemented() -> None:
    assert set(SCORERS) == set(RewardType)


@pytest.mark.parametrize(
    ("match", "text", "answer", "value"),
    [
        (Match.EXACT, " metal\n", "metal", 1),
        (Match.EXACT, "a metal", "metal", 0),
        (Match.CHOICE, "Both A and B are close, but the answer is B.", "b", 1),
        (Match.CHOICE, "Both A and B are close, but the answer is B.", "A", 0),
        (Match.CHOICE, "The answer is B. I am sure.", "B", 1),
        (Match.CHOICE, "The answer is B. I am sure.", "I", 0),
        (Match.CHOICE, "B. A dog is no fruit.", "B", 1),
        (Match.CHOICE, "B. A dog is no fruit.", "A", 0),
        (Match.CHOICE, "<think>The answer is A?</think>\n(B)", "B", 1),
        (Match.CHOICE, "<think>The answer is B.", "B", 0),
        (Match.CHOICE, "A or B", "B", 0),
        (Match.CHOICE, "I guess that A is a fruit", "A", 0),
        (Match.CHOICE, "no letter", "A", 0),
        (Match.MATH, "so the result is \\boxed{\\frac{1}{2}}", "0.5", 1),
        (Match.MATH, "the answer is 72", "48 / 2 = 24\n48 + 24 = 72\n#### 72", 1),
        (Match.MATH, "the answer is 71", "#### 72", 0),
        (Match.MATH, "", "72", 0),
        (Match.MATH, "so $1024$", "2^{10}", 1),
        (Match.MATH, "so $2$", "2^{10}", 0),
        (Match.MATH, "it is $\\sqrt{2}$", "\\sqrt{2}", 1),
        (Match.MATH, "any text", "see the drawing", 0),
        (Match.MATH, "any text", "$\\frac{", 0),
    ],
)
def test_accuracy_is_1_for_the_right_answer(match: Match, text: str, answer: str, value: float) -> None:
    assert scored(text, columns={"answer": answer}, type="accuracy", match=match) == value


def check(columns: dict[str, Any], **reward: Any) -> None:
    settings = Reward.model_validate({"name": "right", **reward})
    SCORERS[settings.type].check(settings, Work(Path("absent")))(Prompt("", columns=columns))


def test_a_row_without_the_answer_names_the_columns_that_it_has() -> None:
    expected = "has no answer in 'answer', the column of reward right; its further columns are id, solution"
    with pytest.raises(RowError, match=expected) as error:
        check({"solution": "1", "id": 3}, type="accuracy")
    assert error.value.hint is not None
    assert error.value.hint.startswith("set column of right in spec.rewards")
    check({"solution": "1"}, type="accuracy", column="solution")


@pytest.mark.parametrize("answer", ["72", "-1.5", "#### 72", "2^{10}", "\\frac{1}{2}", "1,000", 3])
def test_answers_that_are_mathematics_are_accepted(answer: Any) -> None:
    check({"answer": answer}, type="accuracy")


@pytest.mark.parametrize("answer", ["see the drawing", "$\\frac{", "yes", ""])
def test_an_answer_that_is_no_mathematics_is_compared_as_a_text_only_if_asked(answer: str) -> None:
    with pytest.raises(RowError, match="which reward right cannot read as mathematics"):
        check({"answer": answer}, type="accuracy")
    check({"answer": answer}, type="accuracy", match="exact")


@pytest.mark.parametrize(
    ("text", "column", "value"),
    [
        ("It is at [0, 0, 10, 10].", [0, 0, 10, 10], 1),
        ("It is at [0, 0, 10, 5].", [0, 0, 10, 10], 0.5),
        ("<|box_start|>(5,0),(15,10)<|box_end|>", "[0, 0, 10, 10]", 50 / 150),
        ('[{"bbox_2d": [20, 0, 30, 10]}, {"bbox_2d": [0, 0, 10, 10]}]', [[0, 0, 10, 10], [20, 0, 30, 10]], 1),
        ("[0, 0, 10, 10]", [[0, 0, 10, 10], [20, 0, 30, 10]], 0.5),
        ("<think>[0, 0, 10, 10]?</think> [20, 0, 30, 10]", [0, 0, 10, 10], 0),
        ("<think>[0, 0, 10, 10]", [0, 0, 10, 10], 0),
        ("at the top", [0, 0, 10, 10], 0),
        ("", [0, 0, 10, 10], 0),
    ],
)
def test_overlap_is_the_iou_of_the_boxes(text: str, column: Any, value: float) -> None:
    assert scored(text, columns={"bbox": column}, type="overlap", column="bbox") == pytest.approx(value)


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        ([0, 0, 10], "has no box in 'answer', the column of reward right: '[0, 0, 10]'"),
        ("top left", "has no box in 'answer'"),
        ([10, 0, 0, 10], "has a box without area [10.0, 0.0, 0.0, 10.0] in 'answer'"),
        ([[0, 0, 5, 5], [0, 5, 10, 5]], "has a box without area [0.0, 5.0, 10.0, 5.0]"),
        (None, "has no answer in 'answer', the column of reward right"),
    ],
)
def test_a_row_without_a_box_is_no_row_for_overlap(column: Any, problem: str) -> None:
    with pytest.raises(RowError, match=re.escape(problem)):
        check({"answer": column}, type="overlap")
    check({"answer": [[0, 0, 5, 5], [0, 5, 10, 6]]}, type="overlap")


@pytest.mark.parametrize(
    ("text", "column", "value"),
    [
        ("TOTAL 12.50\n", "TOTAL 12.50", 1),
        ("TOTAL 12.80", "TOTAL 12.50", 10 / 11),
        ("<think>TOTAL 12.50?</think>TOTAL", "TOTAL", 1),
        ("<think>TOTAL", "TOTAL", 0),
        ("72", 72, 1),
        ("", "TOTAL", 0),
    ],
)
def test_edits_is_the_share_of_characters_that_are_right(text: str, column: Any, value: float) -> None:
    assert scored(text, columns={"text": column}, type="edits", column="text") == pytest.approx(value)


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        (["a"], "has a list in 'answer', the column of reward right; expected a text or a number"),
        (True, "has a boolean in 'answer'"),
        (" ", "has an empty string in 'answer'"),
        (None, "has no answer in 'answer', the column of reward right"),
    ],
)
def test_a_row_without_a_text_is_no_row_for_edits(column: Any, problem: str) -> None:
    with pytest.raises(RowError, match=re.escape(problem)):
        check({"answer": column}, type="edits")
    check({"answer": 72}, type="edits")


def test_format_is_1_where_the_pattern_is_found() -> None:
    pattern = r"^<think>.*</think>\s*\S"
    assert scored("<think>a\nb</think> c", type="format", pattern=pattern) == 1
    assert scored("c", type="format", pattern=pattern) == 0


def test_a_pattern_that_is_the_worst_case_of_others_is_found_in_linear_time() -> None:
    assert scored("a" * 100_000 + "c", type="format", pattern=r"^(a|aa)+b|c$") == 1


@pytest.mark.parametrize("pattern", ["(", "a(?=b)", r"(a)\1"])
def test_a_pattern_that_re2_does_not_compile_is_refused(pattern: str) -> None:
    with pytest.raises(RunFailure, match="is no regular expression of RE2: ") as failure:
        check({}, type="format", pattern=pattern)
    assert failure.value.failure is FailureClass.BAD_SPEC
    assert "in the syntax of RE2" in str(failure.value.hint)


@pytest.mark.parametrize(("tokens", "value"), [(1, 0), (60, 0), (80, -0.5), (100, -1)])
def test_length_falls_from_the_free_tokens_to_the_longest_completion(tokens: int, value: float) -> None:
    assert scored("", tokens, type="length", freeTokens=60) == value
