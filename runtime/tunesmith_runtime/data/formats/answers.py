"""Rows of a prompt and an answer in any of the formats for them, as a part of a row that has further keys."""

from __future__ import annotations

from typing import Any

from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.formats.alpaca import ALPACA
from tunesmith_runtime.data.formats.format import Format
from tunesmith_runtime.data.formats.messages import MESSAGES, scaled
from tunesmith_runtime.data.formats.prompt_completion import PROMPT_COMPLETION
from tunesmith_runtime.data.formats.query_response import QUERY_RESPONSE
from tunesmith_runtime.data.formats.sharegpt import SHAREGPT
from tunesmith_runtime.data.records import Continuation, Conversation
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.row_fields import keys_of

Text = Conversation | Continuation
"""A prompt with its answer, without media."""
ANSWERED = (MESSAGES, SHAREGPT, PROMPT_COMPLETION, ALPACA, QUERY_RESPONSE)
SPELLINGS = tuple(keys for row_format in ANSWERED for keys in (*row_format.spellings, *row_format.rare_spellings))
KNOWN = frozenset[str]().union(*(row_format.known for row_format in ANSWERED))
TURNS = {key: turns for row_format in ANSWERED for key, turns in row_format.turns.items()}


def format_of(row: dict[str, Any]) -> Format | None:
    """The format of a row of prompt and answer."""
    return next((row_format for row_format in ANSWERED if row_format.matches(row)), None)


def read(row: dict[str, Any]) -> Text | DropReason:
    """The prompt and the answer of a row. Raises RowError."""
    row_format = format_of(row)
    if row_format is None:
        expected = " | ".join(each.expected for each in ANSWERED)
        raise RowError(f"has no prompt with an answer; its keys are {keys_of(row)}; expected {expected}")
    record = row_format.read(row)
    assert isinstance(record, Conversation | Continuation | DropReason), f"{row_format.name} yields {type(record)}"
    if isinstance(record, Conversation) and record.is_scaled:
        raise scaled(next(key for key in row_format.turns if key in row))
    return record
