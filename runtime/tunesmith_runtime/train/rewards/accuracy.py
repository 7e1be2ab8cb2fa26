"""Reward of the right answer: 1, else 0."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from tunesmith_api.failures import FailureClass
from tunesmith_api.methods import Match, Reward, RewardType
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.rewards.base import Completion, Scorer

LETTER = re.compile(r"\b[A-Z]\b")
FINAL = "####"
"""Mark of GSM8K before the final result of a solution."""
SECONDS = 2
"""Time that a completion may take to be read as mathematics."""


def score(completion: Completion, reward: Reward) -> float:
    """Compare the completion with the column of its row that has the answer."""
    answer = completion.columns.get(reward.column)
    if answer is None:
        known = ", ".join(sorted(completion.columns)) or "none"
        raise RunFailure(
            FailureClass.BAD_ROW,
            f"reward {reward.name}: a row has no column {reward.column!r}; its further columns are {known}",
            f"set column of {reward.name} in spec.rewards to the column with the right answer, or rename it by spec.datasets[].columns",
        )
    return float(MATCHES[reward.match](completion.text, str(answer)))


def is_equal(text: str, answer: str) -> bool:
    """Whether the texts are equal but for white space at their ends."""
    return text.strip() == answer.strip()


def is_choice(text: str, answer: str) -> bool:
    """Whether the last single capital letter is the answer."""
    letters = LETTER.findall(text)
    return bool(letters) and letters[-1] == answer.strip().upper()


def is_equivalent(text: str, answer: str) -> bool:
    """Whether both are equal as mathematics (math-verify), or as texts where the answer is no mathematics.

    Of a solution that ends like GSM8K's, the final result counts.
    """
    from math_verify import parse, verify

    result = answer.rpartition(FINAL)[2].strip()
    expected = parse(f"${result}$" if is_latex(result) else result, parsing_timeout=SECONDS)
    if not expected:
        return is_equal(text, result)
    found = parse(text, parsing_timeout=SECONDS)
    return bool(verify(expected, found, timeout_seconds=SECONDS))


def is_latex(answer: str) -> bool:
    """Whether an answer is LaTeX without its delimiters, as data sets of mathematics write it."""
    return any(mark in answer for mark in ("\\", "^")) and "$" not in answer and "\\boxed" not in answer


MATCHES: Mapping[Match, Callable[[str, str], bool]] = {
    Match.EXACT: is_equal,
    Match.CHOICE: is_choice,
    Match.MATH: is_equivalent,
}

ACCURACY = Scorer(RewardType.ACCURACY, score)
