"""{"instruction": "…", "input": "…", "output": "…", "system": "…", "history": [["…", "…"]]}, for the chat template.

The format of Alpaca (Taori et al., 2023), with the keys that LLaMA-Factory and ms-swift add.
"""

from __future__ import annotations

from typing import Any

from tunesmith_api.datasets import RowFormat
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.formats.format import Format
from tunesmith_runtime.data.formats.messages import answered
from tunesmith_runtime.data.records import Conversation
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.row_fields import kind_of, text_of


def read(row: dict[str, Any]) -> Conversation | DropReason:
    """The turns of `history`, then a turn whose question is instruction and input, each on its own line."""
    asked = [part for part in (text_of(row, "instruction"), text_of(row, "input", "")) if part]
    return answered(row, [*history(row), *turn("\n".join(asked), text_of(row, "output"))])


def turn(asked: str, answer: str) -> list[dict[str, Any]]:
    """A question and its answer as messages."""
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]


def history(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages of earlier turns, each a pair of question and answer. Raises RowError that names the pair."""
    pairs = row.get("history") or []
    if not isinstance(pairs, list):
        raise RowError(f"'history' is {kind_of(pairs)}; expected a list of [question, answer]", field="history")
    messages: list[dict[str, Any]] = []
    for index, pair in enumerate(pairs):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            place = f"history[{index}]"
            raise RowError(f"{place} is not [question, answer], both strings", field=place)
        messages += turn(*pair)
    return messages


ALPACA = Format(
    RowFormat.ALPACA,
    records=frozenset({Conversation}),
    spellings=(("instruction", "output"),),
    expected='{"instruction", "input", "output"}',
    known=frozenset({"instruction", "input", "output", "system", "history", "tools"}),
    read=read,
)
