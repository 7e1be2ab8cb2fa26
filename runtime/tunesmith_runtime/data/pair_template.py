"""How a tokenizer joins two texts into one sequence, as in `tokenizer(query, passage)`.

Rerankers are served with such calls, by transformers and by the CrossEncoder of Sentence Transformers (https://sbert.net).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure

FIRST, SECOND = "query", "a passage"
"""Texts by which the tokens around texts are found."""


@dataclass(frozen=True)
class PairTemplate:
    """The tokens that a tokenizer puts around two texts."""

    before: list[int]
    between: list[int]
    after: list[int]

    def joined(self, first: Sequence[int], second: Sequence[int]) -> list[int]:
        """Return the sequence of two texts, from the tokens of each."""
        return [*self.before, *first, *self.between, *second, *self.after]


def pair_template(tokenizer: Any) -> PairTemplate:
    """Return the template of a tokenizer. Raises RunFailure (BadModel) if it changes the tokens of the texts."""
    whole = list(tokenizer(FIRST, SECOND)["input_ids"])
    first, second = (list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (FIRST, SECOND))
    start = place_of(first, whole, 0)
    follows = None if start is None else place_of(second, whole, start + len(first))
    if start is None or follows is None:
        raise RunFailure(
            FailureClass.BAD_MODEL,
            f"the tokenizer does not join {FIRST!r} and {SECOND!r} from the tokens of each, but to {whole}",
            "name another model, or use method embed",
        )
    return PairTemplate(whole[:start], whole[start + len(first) : follows], whole[follows + len(second) :])


def place_of(part: Sequence[int], whole: Sequence[int], start: int) -> int | None:
    """Return the first index from `start` at which `whole` has the tokens `part`; None if there is none."""
    ends = range(start, len(whole) - len(part) + 1)
    return next((at for at in ends if list(whole[at : at + len(part)]) == list(part)), None)
