"""Scores of speech that was written down: word and character error rates. Pure functions.

Both sides are normalized first: Unicode NFKC, folded case, and a single space for every run of punctuation, symbols and white space.
Apostrophes within words stay (`don't`, with ' for its typographic form). Numbers are not spelled out and abbreviations not resolved:
`20` and `twenty` differ. Between characters of Chinese, Japanese, Thai, Lao, Burmese and Khmer, whose words have no spaces, white space is
removed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith_runtime.answers.edit_distance import error_rate
from tunesmith_runtime.answers.scripts import SPACE_BESIDE, is_unspaced, without_marks

APOSTROPHE = re.compile(r"(?<=[^\W\d_])['\u2019](?=[^\W\d_])")


@dataclass(frozen=True)
class ErrorRates:
    """Error rates of all transcripts of an evaluation: 0 is best, and they exceed 1 where much is inserted."""

    words: float
    """WER: word edits divided by the words of the references."""
    characters: float
    """CER: character edits divided by the characters of the references."""
    has_words: bool
    """Whether the references are of scripts with spaces between words. Otherwise CER is the figure to compare."""

    @property
    def primary(self) -> float:
        """The rate to compare: CER for scripts without spaces between words, else WER."""
        return self.words if self.has_words else self.characters


def normalized(text: str) -> str:
    """Return the form of a transcript that is compared; empty for punctuation and white space alone."""
    text = unicodedata.normalize("NFKC", text).casefold()
    parts = (without_marks(part) for part in APOSTROPHE.split(text))
    return SPACE_BESIDE.sub("", " ".join("'".join(parts).split()))


def error_rates(predictions: Sequence[str], references: Sequence[str]) -> ErrorRates:
    """Return the error rates over all transcripts (Morris et al., 2004, "From WER and RIL to MER and WIL").

    Edits and lengths are summed before they are divided, so that long transcripts weigh more. Both rates are 0 for no
    transcripts. An empty prediction counts all of its reference as deleted. ValueError if the lists differ in length.
    """
    pairs = [
        (normalized(predicted), normalized(right)) for predicted, right in zip(predictions, references, strict=True)
    ]
    return ErrorRates(
        words=error_rate((predicted.split(), right.split()) for predicted, right in pairs),
        characters=error_rate(pairs),
        has_words=not is_unspaced(right for _, right in pairs),
    )
