"""Row formats. Each has a module, and FORMATS finds it by its name in `datasets[].format`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from tunesmith_api.training import RowFormat
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.formats.alpaca import ALPACA
from tunesmith_runtime.data.formats.format import Format
from tunesmith_runtime.data.formats.messages import MESSAGES
from tunesmith_runtime.data.formats.prompt_completion import PROMPT_COMPLETION
from tunesmith_runtime.data.formats.sharegpt import SHAREGPT
from tunesmith_runtime.data.formats.text import TEXT
from tunesmith_runtime.data.records import Record
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.row_fields import has, keys_of
from tunesmith_runtime.messages import asks, unknown

FORMATS: dict[RowFormat, Format] = {
    row_format.name: row_format for row_format in (MESSAGES, SHAREGPT, PROMPT_COMPLETION, ALPACA, TEXT)
}
"""The formats that are read, in the order in which they are detected."""

_MODALITIES = ("images", "image", "videos", "video", "audios", "audio", "objects")
_PREFERENCES = ("chosen", "rejected", "rejected_response", "rejected_messages", "kto_tag")
_TOKENS = ("input_ids", "labels", "attention_mask", "assistant_masks", "completion_mask")
_WEIGHTS = ("weight", "weights", "loss", "loss_scale", "loss_weight", "sample_weight")
_MASKS = ("loss_mask", "loss_masks", "train_mask", "mask", "train", "trainable")

REFUSED: Mapping[str, str] = {
    **dict.fromkeys(_MODALITIES, "remove the key: only text is learned or asked"),
    **dict.fromkeys(_PREFERENCES, "remove the key: only the answer itself is learned or asked"),
    **dict.fromkeys(_TOKENS, "remove the key: rows are encoded from their text"),
    **dict.fromkeys((*_WEIGHTS, *_MASKS), "remove the key; in messages, weight: 0 keeps an answer from being learned"),
    "history": "write the earlier turns as messages, or the row as {instruction, output, history}",
    "system": "write the row as messages, or as {instruction, output, system}",
    "system_prompt": "write the row as messages, or as {instruction, output, system}",
    "tools": "write the row as messages",
    "functions": "write it as tools: [{type: function, function: {name, parameters}}]",
    "documents": "write the documents into the text, and remove the key",
    "chat_template": "remove the key: the model's own chat template is used",
    "chat_template_kwargs": "remove the key: the template is used as the server uses it",
}
"""Keys of a row that change what is learned or asked, with the hint for formats that do not read them."""

SIMILAR: tuple[tuple[dict[str, str], type], ...] = (
    ({"query": "instruction", "response": "output"}, str),
    ({"question": "instruction", "answer": "output"}, str),
    ({"question": "instruction", "response": "output"}, str),
    ({"instruction": "instruction", "context": "input", "response": "output"}, str),
    ({"instruction": "instruction", "response": "output"}, str),
    ({"prompt": "instruction", "response": "output"}, str),
    ({"input": "instruction", "output": "output"}, str),
    ({"conversation": "conversations"}, list),
    ({"dialog": "conversations"}, list),
    ({"dialogue": "conversations"}, list),
    ({"content": "text"}, str),
)
"""Renamings that turn common rows into a known format, and the type of the values, in the order in which they are proposed."""


def detect(row: dict[str, Any], renamed_by: str = "datasets[].columns") -> RowFormat:
    """The first format whose keys `row` has. A key whose value is null counts as absent.

    Raises RowError with the keys of the row and those of all formats. `renamed_by` is the field or tool that renames keys.
    """
    if found := _matching(row):
        return found.name
    expected = " | ".join(row_format.expected for row_format in FORMATS.values())
    raise RowError(f"is in no known format: its keys are {keys_of(row)}; expected {expected}", _advice(row, renamed_by))


def _matching(row: Mapping[str, Any]) -> Format | None:
    return next((row_format for row_format in FORMATS.values() if row_format.matches(row)), None)


def yielding(records: Collection[type[Record]]) -> list[RowFormat]:
    """The formats whose rows can yield a record of these types."""
    return [name for name, row_format in FORMATS.items() if not row_format.records.isdisjoint(records)]


def _advice(row: dict[str, Any], renamed_by: str) -> str:
    """The hint for a row in no known format."""
    if has(row, "chosen"):
        ours = "messages" if isinstance(row["chosen"], list) else "completion"
        return f"rename the key chosen to {ours}, and remove rejected: only the answer itself is learned"
    if has(row, "input_ids"):
        return "write the text of the rows, not their tokens"
    for row_format in FORMATS.values():
        if all(key in row for key in row_format.keys):  # and at least one is null
            nulls = (key for key in row_format.keys if not has(row, key))
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


def read(row: dict[str, Any], name: RowFormat) -> Record | DropReason:
    """Read a row of that format. Raises RowError, also for a key that is refused."""
    row_format = FORMATS[name]
    if not row_format.matches(row):
        raise _other_format(row, row_format)
    refuse(row, row_format.known)
    return row_format.read(row)


def refuse(row: Mapping[str, Any], known: frozenset[str]) -> None:
    """Raise RowError for a key that changes what is learned or asked and is not `known`."""
    for key, hint in REFUSED.items():
        weighs = key in (*_WEIGHTS, *_MASKS) and row.get(key) is not None
        if key not in known and (weighs or asks(row.get(key))):
            raise RowError(f"has '{key}', which is not supported here", hint, key)
    if isinstance(row.get("label"), bool) and "label" not in known:
        raise RowError(
            "has 'label', which separates good answers from bad ones",
            "remove the rows of bad answers, and the key",
            "label",
        )


def ignored(row: Mapping[str, Any], name: RowFormat) -> set[str]:
    """Keys of a row that are not read, those of its messages as `messages[].key`. A key whose value is null is absent."""
    row_format = FORMATS[name]
    found = {key for key, value in row.items() if key not in row_format.known | REFUSED.keys() and value is not None}
    return found.union(
        *(unknown(row_format.as_messages(row[key]), key, known) for key, known in row_format.message_keys.items())
    )


def rename(row: dict[str, Any], columns: dict[str, str]) -> dict[str, Any]:
    """`row` with its columns renamed as {theirName: ourName}. A renamed column replaces a column that has its new name.

    Raises RowError for a column that the row does not have.
    """
    for theirs in columns:
        if theirs not in row:
            raise RowError(f"has no '{theirs}', which datasets[].columns renames; its keys are {keys_of(row)}")
    kept = {key: value for key, value in row.items() if key not in columns}
    return {**kept, **{ours: row[theirs] for theirs, ours in columns.items()}}


def _other_format(row: dict[str, Any], row_format: Format) -> RowError:
    """The error of a row that lacks keys of its data set's format."""
    missing = next(key for key in row_format.keys if not has(row, key))
    lacks = f"'{missing}' is null" if missing in row else f"has no '{missing}'"
    sentence = f"{lacks}; its keys are {keys_of(row)}; expected {row_format.expected}, the format of the data set"
    other = _matching(row)
    hint = f"put rows of format {other.name} into a data set of their own, with format: {other.name}" if other else None
    return RowError(sentence, hint, missing)
