"""The first dropped rows of each reason, for the user to look at: dropped.jsonl in the run's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tunesmith_runtime.data.drop_reasons import MEANING, DropReason
from tunesmith_runtime.data.files.place import MAX_SENTENCE, Place

FILE = "dropped.jsonl"
MOST = 5
"""Rows of each reason that are kept."""
CHARACTERS = 300
"""Characters of a row's text that are kept."""


class DropLog:
    """The first MOST dropped rows of each reason, in memory, and in a file as they are found."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder`: of FILE, which is written with the first row, and removed until then; None: no file is written."""
        self.examples: list[dict[str, Any]] = []
        self._file = folder / FILE if folder else None
        if self._file:
            self._file.unlink(missing_ok=True)

    def add(
        self,
        reason: DropReason,
        uri: str,
        place: Place,
        row: Any,
        sentence: str | None = None,
        hint: str | None = None,
    ) -> None:
        """Keep a row if it is among the first of its reason, once. `sentence` is its cause, `hint` what to do."""
        if sum(example["reason"] == reason for example in self.examples) >= MOST:
            return
        text = row if isinstance(row, str) else json.dumps(row, ensure_ascii=False, default=str)
        shown = text if len(text) <= CHARACTERS else f"{text[:CHARACTERS]}…"
        example = {
            "reason": reason,
            "file": uri,
            "place": str(place),
            "sentence": (sentence or MEANING[reason])[:MAX_SENTENCE],
            "row": shown,
        }
        self.keep(example | ({"hint": hint[:MAX_SENTENCE]} if hint else {}))

    def keep(self, example: dict[str, Any]) -> None:
        """Keep a row of `examples`, for example one that an earlier attempt has found."""
        if example in self.examples:
            return
        self.examples.append(example)
        if self._file:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"{json.dumps(example, ensure_ascii=False)}\n")
