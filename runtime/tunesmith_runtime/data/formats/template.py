"""Rows in columns of any name, as a turn of the chat template: `datasets[].template`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from tunesmith_api.datasets import RowTemplate
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.formats.format import Format
from tunesmith_runtime.data.formats.messages import answered
from tunesmith_runtime.data.records import Conversation
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.row_fields import keys_of, kind_of

NAME = "template"
_PIECE = re.compile(r"\{\{|\}\}|\{[^{}]+\}|[^{}]+")

Fill = Callable[[dict[str, Any]], str]


def template_format(template: RowTemplate, place: str) -> Format:
    """The format of rows that `template` makes a turn of. Columns that it does not name are not read.

    `place`: the field of the template, below spec.
    """
    texts = {"prompt": template.prompt, "completion": template.completion}
    if template.system is not None:
        texts = {"system": template.system, **texts}
    fills = {name: filler(text, f"{place}.{name}") for name, text in texts.items()}
    roles = {"system": "system", "prompt": "user", "completion": "assistant"}

    def read(row: dict[str, Any]) -> Conversation | DropReason:
        messages = [{"role": roles[name], "content": fill(row)} for name, fill in fills.items()]
        if not messages[-2]["content"].strip():
            return DropReason.NO_PROMPT
        return answered({}, messages)

    columns = {column for text in texts.values() for column in columns_of(text)}
    return Format(
        NAME,
        records=frozenset({Conversation}),
        spellings=((),),
        expected=" and ".join(f'"{column}"' for column in sorted(columns)),
        known=frozenset(columns),
        read=read,
        refused={},
    )


def columns_of(text: str) -> list[str]:
    """The columns that a text of a template names."""
    return [piece[1:-1] for piece in _PIECE.findall(text) if piece.startswith("{") and piece != "{{"]


def filler(text: str, field: str) -> Fill:
    """A function that makes the text of a row. It raises RowError for a column that is missing or has no text."""
    pieces = _PIECE.findall(text)
    literals = {"{{": "{", "}}": "}"}
    parts = [
        (None, piece[1:-1]) if piece.startswith("{") and piece not in literals else (literals.get(piece, piece), "")
        for piece in pieces
    ]

    def fill(row: dict[str, Any]) -> str:
        return "".join(_value(row, column, field) if literal is None else literal for literal, column in parts)

    return fill


def _value(row: dict[str, Any], column: str, field: str) -> str:
    """The text in a column; numbers and booleans as in JSON."""
    value = row.get(column)
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if column not in row:
        raise RowError(f"has no '{column}', which {field} names; its keys are {keys_of(row)}", field=column)
    raise RowError(f"'{column}' is {kind_of(value)}, and {field} needs a text or a number", field=column)
