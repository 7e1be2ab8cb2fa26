"""The first dropped rows of each reason, for the user to look at: dropped.jsonl in the run's folder."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tunesmith_runtime.data.drop_reasons import MEANING, DropReason
from tunesmith_runtime.data.files.place import MAX_SENTENCE, Place

FILE = "dropped.jsonl"
MOST = 5
"""Rows of each reason that are kept."""
CHARACTERS = 300
"""Characters of a row's text that are kept."""


class DroppedRows:
    """The first MOST dropped rows of each reason, in bounded memory."""

    def __init__(self) -> None:
        self.examples: list[dict[str, Any]] = []
        self._count = Counter[DropReason]()

    def add(
        self,
        reason: DropReason,
        uri: str,
        place: Place,
        row: Any,
        sentence: str | None = None,
        hint: str | None = None,
    ) -> None:
        """Keep a row if it is among the first of its reason. `sentence` is its cause, `hint` what to do."""
        self._count[reason] += 1
        if self._count[reason] > MOST:
            return
        text = row if isinstance(row, str) else json.dumps(row, ensure_ascii=False, default=str)
        shown = text if len(text) <= CHARACTERS else f"{text[:CHARACTERS]}…"
        self.examples.append(
            {
                "reason": reason,
                "file": uri,
                "place": str(place),
                "sentence": (sentence or MEANING[reason])[:MAX_SENTENCE],
                "row": shown,
            }
            | ({"hint": hint[:MAX_SENTENCE]} if hint else {})
        )

    def write(self, folder: Path) -> None:
        """Write a line for each row that is kept to FILE; no file if there is none."""
        if not self.examples:
            return
        folder.mkdir(parents=True, exist_ok=True)
        lines = (json.dumps(example, ensure_ascii=False) for example in self.examples)
        text = "".join(f"{line}\n" for line in lines)
        (folder / FILE).write_text(text, encoding="utf-8", errors="backslashreplace")
