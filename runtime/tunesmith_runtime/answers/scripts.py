"""Words of texts in any script, also of those that write no space between words. Pure functions."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

HAN = r"々〇\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
OTHERS = r"\u3041-\u30ff\u31f0-\u31ff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
"""Kana, Thai, Lao, Burmese and Khmer."""
UNSPACED = re.compile(f"[{HAN}{OTHERS}]")
"""A character of a script without spaces between words."""
HAN_ONLY = re.compile(f"[{HAN}]")
SPACE_BESIDE = re.compile(rf"(?<=[{HAN}{OTHERS}])\s+|\s+(?=[{HAN}{OTHERS}])")


def is_unspaced(texts: Iterable[str]) -> bool:
    """Whether most letters of the texts belong to scripts without spaces between words; false for texts without letters."""
    letters = unspaced = 0
    for text in texts:
        letters += sum(unicodedata.category(character)[0] in "LM" for character in text)
        unspaced += len(UNSPACED.findall(text))
    return unspaced * 2 > letters


def without_marks(text: str) -> str:
    """Return `text` with a space for each character of punctuation, symbol or control character, and without invisible ones."""
    return "".join(map(_letter, text))


def tokens(text: str) -> list[str]:
    """Return the words of `text` in NFKC and folded case, without punctuation: each character of a script without spaces is a word."""
    text = without_marks(unicodedata.normalize("NFKC", text).casefold())
    return UNSPACED.sub(r" \g<0> ", text).split()


def _letter(character: str) -> str:
    category = unicodedata.category(character)
    return "" if category == "Cf" else " " if category[0] in "PSC" else character
