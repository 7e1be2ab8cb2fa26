"""Preferences and feedback of the tiny model's task: the right category is chosen or good, another is rejected or bad."""

from __future__ import annotations

import random
from typing import Any

from tests import tinymodel


def preferences(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """`count` rows of prompt, chosen and rejected; those of different seeds share no prompt."""
    choose = random.Random(seed)
    rows = []
    for row in tinymodel.rows(count, seed):
        question, right = row["messages"]
        others = [category for category in tinymodel.CATEGORIES if category != right["content"]]
        wrong = {"role": "assistant", "content": choose.choice(others)}
        rows.append({"prompt": [question], "chosen": [right], "rejected": [wrong]})
    return rows


def feedback(count: int) -> list[dict[str, Any]]:
    """`count` rows with a good and with a bad answer in turn."""
    rows = []
    for index, row in enumerate(preferences(count)):
        answer = row["rejected"] if index % 2 else row["chosen"]
        rows.append({"messages": [*row["prompt"], *answer], "label": index % 2 == 0})
    return rows
