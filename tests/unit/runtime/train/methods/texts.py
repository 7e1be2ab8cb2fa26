"""Texts of the tiny model's task: with the category of the word, several of them, or a number; or in pairs."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from tests import tinymodel

ORDER = list(tinymodel.CATEGORIES)
WORDS = [word for members in tinymodel.CATEGORIES.values() for word in members]
SEVERAL = {"fruit": ["grows"], "animal": ["grows", "moves"], "tool": ["made"], "metal": []}
"""Classes of which any number apply."""
LABELS: Mapping[str, Callable[[str], Any]] = {
    "singleLabel": lambda category: category,
    "multiLabel": SEVERAL.__getitem__,
    "regression": lambda category: ORDER.index(category) / 2 - 0.5,
}
"""For each problem the label of a category."""


def labelled(count: int, problem: str = "singleLabel", seed: int = 0) -> list[dict[str, Any]]:
    """`count` rows of text and label; those of different seeds share no text."""
    return [
        {"text": question["content"], "label": LABELS[problem](answer["content"])}
        for question, answer in (row["messages"] for row in tinymodel.rows(count, seed))
    ]


def pairs(count: int, seed: int = 0, negatives: bool = False) -> list[dict[str, Any]]:
    """`count` pairs of a question and the word that it asks for, as negatives another word; the questions of different seeds differ."""
    choose = random.Random(seed)
    rows = []
    for index in range(count):
        word, other = WORDS[index % len(WORDS)], WORDS[(index + 5) % len(WORDS)]
        row = {"anchor": f"What is a {word}? ({seed}{choose.randrange(1000):03})", "positive": f"A {word}."}
        rows.append(row | ({"negative": f"A {other}."} if negatives else {}))
    return rows


def scored(count: int) -> list[dict[str, Any]]:
    """`count` pairs of questions: of the same word with score 1, else with 0."""
    rows = pairs(count)
    return [
        {"sentence1": row["anchor"], "sentence2": rows[index - 3 * (index % 2)]["positive"], "score": 1.0 - index % 2}
        for index, row in enumerate(rows)
    ]
