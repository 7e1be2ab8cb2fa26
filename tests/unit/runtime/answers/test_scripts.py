from __future__ import annotations

import pytest

from tunesmith_runtime.answers.scripts import is_unspaced, tokens


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A dog's red_ball, 3.5 m!", ["a", "dog", "s", "red", "ball", "3", "5", "m"]),
        ("一只cat坐下。", ["一", "只", "cat", "坐", "下"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("ไม่ดี", ["ไ", "ม", "่", "ด", "ี"]),
        ("コーヒー・ミル", ["コ", "ー", "ヒ", "ー", "ミ", "ル"]),
        ("mi\u00adci\u200bo", ["micio"]),
        (" .,! ", []),
    ],
)
def test_words_are_divided_by_spaces_or_by_characters(text: str, words: list[str]) -> None:
    assert tokens(text) == words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("你好世界", True),
        ("猫が好き", True),
        ("ภาษาไทย", True),
        ("한국어 문장", False),
        ("a cat", False),
        ("USB 接口 cable", False),
        ("12", False),
        ("", False),
    ],
)
def test_scripts_without_spaces_are_known_by_most_letters(text: str, expected: bool) -> None:
    assert is_unspaced([text]) is expected
