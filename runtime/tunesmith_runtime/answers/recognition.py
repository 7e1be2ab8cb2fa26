"""Scores of text that was read from pictures (OCR). Pure functions.

Case and punctuation count. Unicode forms (NFC) and the kind and amount of white space between characters do not.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from tunesmith_runtime.answers import edit_distance


def plain(text: str) -> str:
    """Return `text` in NFC, without white space at its ends and with one space for every run within it."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def similarity(prediction: str, reference: str) -> float:
    """Return 1 - NED, from 0 to 1 for equal texts (ICDAR 2019 ReCTS, Zhang et al., 2019, https://arxiv.org/abs/1912.09641).

    NED is the edit distance divided by the length of the longer text. 1 for two empty texts, 0 if only one is empty.
    """
    return edit_distance.similarity(plain(prediction), plain(reference))


def character_error_rate(pairs: Iterable[tuple[str, str]]) -> float:
    """Return the edits of all predictions divided by the characters of all references; the pairs are prediction, reference.

    0 is best, also for no pairs; above 1 where a model writes more than there is to read.
    """
    return edit_distance.error_rate((plain(prediction), plain(reference)) for prediction, reference in pairs)
