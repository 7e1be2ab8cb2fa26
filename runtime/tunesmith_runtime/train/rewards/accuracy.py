"""Reward of the right answer: 1, else 0."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from tunesmith_api.rewards import Match, Reward, RewardType
from tunesmith_runtime.answers.choices import read_letter
from tunesmith_runtime.answers.matching import answer_of
from tunesmith_runtime.data.records import Prompt
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.train.rewards.base import Completion, Scorer, answer_in, each
from tunesmith_runtime.workdir import Work

NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
"""Answers that are mathematics without a look by math-verify, whose import takes seconds."""
FINAL = "####"
"""Mark of GSM8K before the final result of a solution."""
SECONDS = 2
"""Time that a completion may take to be read as mathematics."""


def score(completion: Completion, reward: Reward) -> float:
    """Compare the completion with the column of its row that has the answer."""
    return float(MATCHES[reward.match](completion.text, str(completion.columns[reward.column])))


def check(reward: Reward, _: Work) -> Callable[[Prompt], None]:
    """Return what raises RowError for columns without an answer, or with one that cannot be compared."""

    def check_columns(prompt: Prompt) -> None:
        answer = answer_in(prompt, reward)
        if reward.match is Match.MATH and not is_mathematics(str(answer)):
            raise RowError(
                f"has the answer {str(answer)[:80]!r} in {reward.column!r}, which reward {reward.name} cannot read as mathematics",
                f"correct the answer, set match: exact for {reward.name} in spec.rewards, or set spec.onBadRow: Drop",
            )

    return check_columns


def is_equal(text: str, answer: str) -> bool:
    """Whether the texts are equal but for white space at their ends."""
    return text.strip() == answer.strip()


def is_choice(text: str, answer: str) -> bool:
    """Whether the text names the letter of the answer, as an evaluation reads it after the thoughts of the model."""
    reply = answer_of(text)
    return reply is not None and read_letter(reply) == answer.strip().upper()


def is_equivalent(text: str, answer: str) -> bool:
    """Whether both are equal as mathematics (math-verify). Of a solution that ends like GSM8K's, the final result counts."""
    from math_verify import parse, verify

    found = parse(text, parsing_timeout=SECONDS)
    return bool(verify(parsed(answer), found, timeout_seconds=SECONDS))


def is_mathematics(answer: str) -> bool:
    """Whether an answer can be compared as mathematics."""
    return bool(NUMBER.fullmatch(result_of(answer)) or parsed(answer))


def parsed(answer: str) -> list[Any]:
    """Return the forms of an answer as mathematics; empty if it is none."""
    from math_verify import parse

    result = result_of(answer)
    forms: list[Any] = parse(f"${result}$" if is_latex(result) else result, parsing_timeout=SECONDS)
    return forms


def result_of(answer: str) -> str:
    """Return an answer without the way to it."""
    return answer.rpartition(FINAL)[2].strip()


def is_latex(answer: str) -> bool:
    """Whether an answer is LaTeX without its delimiters, as data sets of mathematics write it."""
    return any(mark in answer for mark in ("\\", "^")) and "$" not in answer and "\\boxed" not in answer


MATCHES: Mapping[Match, Callable[[str, str], bool]] = {
    Match.EXACT: is_equal,
    Match.CHOICE: is_choice,
    Match.MATH: is_equivalent,
}

ACCURACY = Scorer(RewardType.ACCURACY, each(score), check)
