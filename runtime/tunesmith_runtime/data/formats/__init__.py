"""Row formats: one module each.

A module has `KEYS` (what a row must have), `EXPECTED` (that as a sentence), `KNOWN` (all keys that it reads), `LISTS`
(keys with lists of messages -> the keys known in a message), and `read(row)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from tunesmith_api.finetunejob import RowFormat
from tunesmith_runtime.data.formats import alpaca, messages, prompt_completion, sharegpt, text
from tunesmith_runtime.data.records import DropReason, Record, RowError, has, keys_of
from tunesmith_runtime.messages import asks, unknown

FORMATS: dict[RowFormat, ModuleType] = {
    RowFormat.MESSAGES: messages,
    RowFormat.SHAREGPT: sharegpt,
    RowFormat.PROMPT_COMPLETION: prompt_completion,
    RowFormat.ALPACA: alpaca,
    RowFormat.TEXT: text,
}
"""The formats that SFT learns from, in the order in which they are tried."""

_MODALITIES = ("images", "image", "videos", "video", "audios", "audio", "objects")
_PREFERENCES = ("chosen", "rejected", "rejected_response", "rejected_messages", "kto_tag")
_TOKENS = ("input_ids", "labels", "attention_mask", "assistant_masks", "completion_mask")
_WEIGHTS = ("weight", "weights", "loss", "loss_scale", "loss_weight", "sample_weight")
_MASKS = ("loss_mask", "loss_masks", "train_mask", "mask", "train", "trainable")

REFUSED: Mapping[str, str] = {
    **dict.fromkeys(_MODALITIES, "remove the key: only text is learned or asked"),
    **dict.fromkeys(_PREFERENCES, "remove the key: what is learned or asked is the answer alone"),
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
"""Keys of a row that change what is learned or asked, where the format does not read them -> what to do instead."""

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
"""Renamings that make a format of what is in none, and the type of the values, in the order in which they are proposed."""


def detect(row: dict[str, Any], renamed_by: str = "datasets[].columns") -> RowFormat:
    """The format of `row`: the first one whose keys it has. A null is no key.

    Raises RowError with the keys it has and those it could have; `renamed_by` is the field or tool that renames keys.
    """
    for name, module in FORMATS.items():
        if has(row, *module.KEYS):
            return name
    expected = " | ".join(module.EXPECTED for module in FORMATS.values())
    raise RowError(f"is in no known format: its keys are {keys_of(row)}; expected {expected}", _advice(row, renamed_by))


def _advice(row: dict[str, Any], renamed_by: str) -> str:
    """What makes a row of a known format of one in none."""
    if has(row, "chosen"):
        ours = "messages" if isinstance(row["chosen"], list) else "completion"
        return f"name the key chosen {ours}, and remove rejected: what is learned is one answer"
    if has(row, "input_ids"):
        return "write the text of the rows, not their tokens"
    for module in FORMATS.values():
        if all(key in row for key in module.KEYS):  # and one of them is null
            return f"give {' and '.join(key for key in module.KEYS if not has(row, key))} a value, or remove the row"
    columns = next((renamed for renamed, kind in SIMILAR if all(_may_be(row.get(key), kind) for key in renamed)), {})
    pairs = ", ".join(f"{theirs}: {ours}" for theirs, ours in columns.items() if theirs != ours)
    if not pairs:
        return f"write the rows in one of these formats, or rename their keys with {renamed_by}"
    return f"rename keys with {renamed_by}: {{{pairs}}}"


def _may_be(value: Any, kind: type) -> bool:
    """Whether a value is of the kind that a format reads: a string, or a list of turns."""
    turns = value if isinstance(value, list) else []
    return isinstance(value, kind) and all(isinstance(turn, dict) and turn.keys() & {"from", "role"} for turn in turns)


def read(row: dict[str, Any], form: RowFormat) -> Record | DropReason:
    """Read a row of that format. Raises RowError, also for a key that can't be honoured."""
    module = FORMATS[form]
    if not has(row, *module.KEYS):
        raise _other_format(row, form)
    refuse(row, module.KNOWN)
    record: Record | DropReason = module.read(row)
    return record


def refuse(row: Mapping[str, Any], known: frozenset[str]) -> None:
    """Raise RowError for a key that changes what is learned or asked and is not `known`."""
    for key, hint in REFUSED.items():
        weighs = key in (*_WEIGHTS, *_MASKS) and row.get(key) is not None
        if key not in known and (weighs or asks(row.get(key))):
            raise RowError(f"has '{key}', which can't be honoured here", hint, key)
    if isinstance(row.get("label"), bool) and "label" not in known:
        raise RowError(
            "has 'label', which tells good answers from bad ones",
            "remove the rows of bad answers, and the key",
            "label",
        )


def ignored(row: Mapping[str, Any], form: RowFormat) -> set[str]:
    """Keys of a row that are not read, those in its messages as `messages[].key`. A null is no key."""
    module = FORMATS[form]
    found = {key for key, value in row.items() if key not in module.KNOWN | REFUSED.keys() and value is not None}
    lists = {key: sharegpt.turns(row[key]) if form is RowFormat.SHAREGPT else row.get(key) for key in module.LISTS}
    return found.union(*(unknown(lists[key], key, known) for key, known in module.LISTS.items()))


def rename(row: dict[str, Any], columns: dict[str, str]) -> dict[str, Any]:
    """`row` with its columns renamed as {theirName: ourName}; a column that is renamed into replaces its namesake.

    Raises RowError for a column that the row does not have.
    """
    for theirs in columns:
        if theirs not in row:
            raise RowError(f"has no '{theirs}', which datasets[].columns renames; its keys are {keys_of(row)}")
    kept = {key: value for key, value in row.items() if key not in columns}
    return {**kept, **{ours: row[theirs] for theirs, ours in columns.items()}}


def _other_format(row: dict[str, Any], form: RowFormat) -> RowError:
    """The error of a row that lacks keys of its data set's format."""
    missing = next(key for key in FORMATS[form].KEYS if not has(row, key))
    lacks = f"'{missing}' is null" if missing in row else f"has no '{missing}'"
    sentence = f"{lacks}; its keys are {keys_of(row)}; expected {FORMATS[form].EXPECTED}, the format of the data set"
    other = next((name for name, module in FORMATS.items() if has(row, *module.KEYS)), None)
    hint = other and f"put rows of format {other} into a data set of their own, with format: {other}"
    return RowError(sentence, hint, missing)
