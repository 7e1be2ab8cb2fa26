"""Media of rows in the places of their tags or parts, for formats whose rows may have some."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from typing import Any

from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.formats.media import (
    KEYS,
    PART_KEYS,
    Found,
    count_tags,
    media,
    media_of,
    mismatch,
    objects_of,
    quoted,
    split,
    tags_of,
)
from tunesmith_runtime.data.records import (
    Answered,
    Continuation,
    Conversation,
    MediaKind,
    MultimodalConversation,
    MultimodalPrompt,
    Prompt,
    Record,
    with_answers,
)
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.row_fields import has

OBJECTS = ("ref", "bbox")
"""Kinds of tags whose values have no part of their own, so that they are read in text parts too."""
MEDIA_KEYS = frozenset({*KEYS, "objects"})
"""Keys of a row that hold media, and what is in them."""

Read = Callable[[dict[str, Any]], Record | DropReason]


def reads_media(read: Read, turns: Collection[str]) -> Read:
    """Return a function that reads a row as `read` does, with its media in the places of their tags.

    `turns`: keys that hold messages. Raises RowError as `read`, and where tags are not as many as media.
    """

    def read_with_media(row: dict[str, Any]) -> Record | DropReason:
        found: Found = {**media_of(row), **objects_of(row)}
        plain = {key: value for key, value in row.items() if key not in MEDIA_KEYS}
        plain_tags = {*MediaKind, *(() if has(row, "objects") else OBJECTS)}
        for key in turns:
            if isinstance(plain.get(key), list):
                plain[key] = without_parts(plain[key], key, found, plain_tags)
        if not found:
            return read(row)
        record = read(plain)
        if isinstance(record, DropReason):
            return record
        if isinstance(record, Prompt):
            asked = (
                Continuation(record.prompt, "")
                if isinstance(record.prompt, str)
                else Conversation(record.prompt, record.tools)
            )
            return MultimodalPrompt(placed(asked, found), record.columns)
        return with_answers(record, partial(placed, found=found))

    return read_with_media


def placed(answer: Answered, found: Found) -> MultimodalConversation:
    """Return an answer with media in the places of their tags. Raises RowError for a prompt of plain text."""
    if not isinstance(answer, Conversation):
        raise RowError("has media beside a prompt of plain text", "name the keys instruction and output")
    return MultimodalConversation(_placed(answer, {kind: [*each] for kind, each in found.items()}))


def without_parts(messages: list[Any], key: str, found: Found, plain_tags: Collection[str]) -> list[Any]:
    """The messages with tags in place of their media parts, which are added to `found`.

    Tags of the kinds `plain_tags` in text parts are quoted.
    """
    return [_without_part(message, f"{key}[{index}]", found, plain_tags) for index, message in enumerate(messages)]


def _without_part(message: Any, place: str, found: Found, plain_tags: Collection[str]) -> Any:
    """A message, or a block tool_result, without media parts."""
    if not isinstance(message, dict):
        return message
    typed = {key: message[key] for key in ("content", "value") if isinstance(message.get(key), list)}
    for key, parts in typed.items():
        typed[key] = [_tagged(part, f"{place}.{key}[{at}]", found, plain_tags) for at, part in enumerate(parts)]
    return {**message, **typed}


def _tagged(part: Any, place: str, found: Found, plain_tags: Collection[str]) -> Any:
    """A text part with the tag of a media part, or with its own text and no tag of `plain_tags`."""
    type_ = part.get("type") if isinstance(part, dict) else None
    if type_ == "tool_result":
        part = _without_part(part, place, found, plain_tags)
    for key in ("text", "content"):
        if type_ in ("text", "tool_result") and isinstance(part.get(key), str):
            part = {**part, key: quoted(part[key], plain_tags)}
    if not isinstance(type_, str) or type_ not in PART_KEYS:
        return part
    kind = PART_KEYS[type_]
    value = next((part[key] for key in (type_, f"{kind}_url", "url", "path", "source") if has(part, key)), None)
    if value is not None:
        found.setdefault(kind, []).append(media(_inline(value), kind, place))
    return {"type": "text", "text": tags_of(kind)}


def _inline(value: Any) -> Any:
    """Anthropic's {type: base64, media_type, data} and OpenAI's {data, format} as a data URI."""
    if isinstance(value, dict) and isinstance(value.get("data"), str):
        type_ = value.get("media_type") or f"audio/{value.get('format') or 'wav'}"
        return f"data:{type_};base64,{value['data']}"
    return value


def _placed(record: Conversation, found: Found) -> Conversation:
    """The conversation with content of parts. Raises RowError where the tags are not as many as the media."""
    tags = sum((Counter(count_tags(message["content"])) for message in record.messages), Counter[str]())
    opening: list[Any] = []
    for kind in MediaKind:
        if kind in found and not tags[kind]:
            opening += found.pop(kind)
    for name in sorted({*tags, *found}):
        there = len(found.get(name, ()))
        if there != tags[name]:
            raise mismatch(name, tags[name], there)
    question = record.first_question
    messages = []
    for index, message in enumerate(record.messages):
        parts = split(message["content"], found)
        messages.append({**message, "content": [*opening, *parts] if index == question else parts})
    return replace(record, messages=messages)
