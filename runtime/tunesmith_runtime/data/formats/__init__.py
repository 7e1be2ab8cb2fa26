"""Row formats. Each has a module, and FORMATS finds it by its name in `datasets[].format`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from tunesmith_api.datasets import RowFormat
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.formats.alpaca import ALPACA
from tunesmith_runtime.data.formats.caption import CAPTION
from tunesmith_runtime.data.formats.classification import CLASSIFICATION
from tunesmith_runtime.data.formats.embedding import EMBEDDING
from tunesmith_runtime.data.formats.feedback import FEEDBACK
from tunesmith_runtime.data.formats.format import Format
from tunesmith_runtime.data.formats.messages import MESSAGES
from tunesmith_runtime.data.formats.preference import PREFERENCE
from tunesmith_runtime.data.formats.prompt import PROMPT
from tunesmith_runtime.data.formats.prompt_completion import PROMPT_COMPLETION
from tunesmith_runtime.data.formats.query_response import QUERY_RESPONSE
from tunesmith_runtime.data.formats.refused import ANY_VALUE, REFUSED
from tunesmith_runtime.data.formats.sharegpt import SHAREGPT
from tunesmith_runtime.data.formats.text import TEXT
from tunesmith_runtime.data.formats.transcription import TRANSCRIPTION
from tunesmith_runtime.data.formats.vqa import VQA
from tunesmith_runtime.data.records import Record
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.row_fields import has, keys_of
from tunesmith_runtime.messages import asks, unknown

FORMATS: dict[RowFormat, Format] = {
    RowFormat(row_format.name): row_format
    for row_format in (
        VQA, CAPTION, TRANSCRIPTION, PREFERENCE, FEEDBACK, EMBEDDING,
        MESSAGES, SHAREGPT, PROMPT_COMPLETION, ALPACA, TEXT, QUERY_RESPONSE,
        CLASSIFICATION, PROMPT,
    )
}  # fmt: skip
"""The formats that are read, in the order in which they are detected."""

SIMILAR: tuple[tuple[dict[str, str], type], ...] = (
    ({"prompt": "instruction", "response": "output"}, str),
    ({"input": "instruction", "output": "output"}, str),
    ({"dialog": "conversations"}, list),
    ({"dialogue": "conversations"}, list),
    ({"content": "text"}, str),
)
"""Renamings that turn common rows into a known format, and the type of the values, in the order in which they are proposed."""


def detect(
    row: dict[str, Any], records: Collection[type[Record]] = (), renamed_by: str = "datasets[].columns"
) -> Format:
    """The first format whose keys `row` has: of those that yield one of `records`, or else of all.

    Raises RowError with the keys of the row and those of the formats. `renamed_by` is the field or tool that renames keys.
    """
    distinct = [row_format for row_format in FORMATS.values() if not row_format.reads_all]
    wanted = [FORMATS[name] for name in yielding(records)] or distinct
    if found := _matching(row, wanted) or _matching(row, distinct):
        return found
    expected = " | ".join(row_format.expected for row_format in wanted)
    raise RowError(
        f"is in no known format: its keys are {keys_of(row)}; expected {expected}", _advice(row, wanted, renamed_by)
    )


def _matching(row: Mapping[str, Any], formats: Collection[Format]) -> Format | None:
    """The first format that has the row's keys as a spelling, or, if there is none, as a rare one."""
    for spelled in (lambda row_format: row_format.spellings, lambda row_format: row_format.rare_spellings):
        for row_format in formats:
            if any(has(row, *keys) for keys in spelled(row_format)):
                return row_format
    return None


def yielding(records: Collection[type[Record]]) -> list[RowFormat]:
    """The formats whose rows can yield a record of these types."""
    return [name for name, row_format in FORMATS.items() if not row_format.records.isdisjoint(records)]


def _advice(row: dict[str, Any], formats: Collection[Format], renamed_by: str) -> str:
    """The hint for a row in no known format."""
    if has(row, "input_ids"):
        return "write the text of the rows, not their tokens"
    for keys in (keys for row_format in formats for keys in row_format.spellings):
        if all(key in row for key in keys):  # and at least one is null
            nulls = (key for key in keys if not has(row, key))
            return f"give {' and '.join(nulls)} a value, or remove the row"
    columns = next((renamed for renamed, kind in SIMILAR if all(_may_be(row.get(key), kind) for key in renamed)), {})
    pairs = ", ".join(f"{theirs}: {ours}" for theirs, ours in columns.items() if theirs != ours)
    if not pairs:
        return f"write the rows in one of these formats, or rename their keys with {renamed_by}"
    return f"rename keys with {renamed_by}: {{{pairs}}}"


def _may_be(value: Any, kind: type) -> bool:
    """Whether a value has the type that a format reads: a string, or a list of turns."""
    turns = value if isinstance(value, list) else []
    return isinstance(value, kind) and all(isinstance(turn, dict) and turn.keys() & {"from", "role"} for turn in turns)


def read(row: dict[str, Any], row_format: Format) -> Record | DropReason:
    """Read a row of that format. Raises RowError, also for a key that is refused."""
    if not row_format.matches(row):
        raise _other_format(row, row_format)
    if row_format.refused:
        refuse(row, row_format.known, row_format.refused)
    return row_format.read(row)


def refuse(row: Mapping[str, Any], known: frozenset[str], refused: Mapping[str, str] = REFUSED) -> None:
    """Raise RowError for a key that changes what is learned or asked and is not `known`."""
    for key in sorted(row.keys() & refused.keys()):
        weighs = key in ANY_VALUE and row[key] is not None
        if key not in known and (weighs or asks(row[key])):
            raise RowError(f"has '{key}', which is not supported here", refused[key], key)
    if isinstance(row.get("label"), bool) and "label" not in known:
        raise RowError(
            "has 'label', which separates good answers from bad answers",
            "remove the rows of bad answers, and the key",
            "label",
        )


def ignored(row: Mapping[str, Any], row_format: Format) -> set[str]:
    """Keys of a row that are not read, those of its messages as `messages[].key`. A key whose value is null is absent."""
    found = set() if row_format.reads_all else row.keys() - row_format.known - row_format.refused.keys()
    found = {key for key in found if row[key] is not None and row.get(row_format.known_with.get(key, "")) is None}
    return found.union(
        *(
            unknown(turns.as_messages(row[key]), key, turns.known)
            for key, turns in row_format.turns.items()
            if isinstance(row.get(key), list)
        )
    )


def rename(row: dict[str, Any], columns: dict[str, str]) -> dict[str, Any]:
    """`row` with its columns renamed as {theirName: ourName}. A renamed column replaces a column that has its new name.

    Raises RowError for a column that the row does not have, and for two columns of one new name.
    """
    if not columns:
        return row
    for theirs in columns:
        if theirs not in row:
            raise RowError(f"has no '{theirs}', which datasets[].columns renames; its keys are {keys_of(row)}")
    if len(names := {*columns.values()}) < len(columns):
        twice = next(name for name in names if [*columns.values()].count(name) > 1)
        hint = "rename one of them, or write a text of several columns with datasets[].template"
        raise RowError(f"datasets[].columns renames more than one column to {twice!r}, and a row has it once", hint)
    kept = {key: value for key, value in row.items() if key not in columns}
    return {**kept, **{ours: row[theirs] for theirs, ours in columns.items()}}


def _other_format(row: dict[str, Any], row_format: Format) -> RowError:
    """The error of a row that lacks keys of its data set's format."""
    keys = min(row_format.spellings, key=lambda keys: sum(not has(row, key) for key in keys))
    missing = next(key for key in keys if not has(row, key))
    lacks = f"'{missing}' is null" if missing in row else f"has no '{missing}'"
    sentence = f"{lacks}; its keys are {keys_of(row)}; expected {row_format.expected}, the format of the data set"
    alike = [each for each in FORMATS.values() if not each.records.isdisjoint(row_format.records)]
    other = _matching(row, alike)
    hint = f"put rows of format {other.name} into a data set of their own, with format: {other.name}" if other else None
    return RowError(sentence, hint, missing)
