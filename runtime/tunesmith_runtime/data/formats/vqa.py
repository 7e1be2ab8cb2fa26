"""A row of prompt and answer with images, videos or sounds, for multimodal models.

{"image_path": "…", "text": "…", "answer": "…"}; or any row of prompt and answer with "images", "videos" or "audios" and the
tags <image>, <video> and <audio> in its texts; or messages with content parts of OpenAI's or Anthropic's form, in whose text
parts these tags are plain text. Media without tags come before the first question. `objects` has the boxes for <ref-object> and
<bbox>.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from tunesmith_api.datasets import RowFormat
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.formats import answers
from tunesmith_runtime.data.formats.alpaca import turn
from tunesmith_runtime.data.formats.format import Format, Turns, beside
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
from tunesmith_runtime.data.records import Conversation, MediaKind, MultimodalConversation
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.row_fields import has, text_of

TEXT_AND_ANSWER = ("text", "answer")
OBJECTS = ("ref", "bbox")
"""Kinds of tags whose values have no part of their own, so that they are read in text parts too."""


def read(row: dict[str, Any]) -> MultimodalConversation | DropReason:
    """The conversation with its media in the places of their tags."""
    found: Found = {**media_of(row), **objects_of(row)}
    plain = {key: value for key, value in row.items() if key not in KEYS and key != "objects"}
    if has(plain, *TEXT_AND_ANSWER) and answers.format_of(plain) is None:
        plain = {**plain, "messages": turn(text_of(plain, "text"), text_of(plain, "answer"))}
    plain_tags = {*MediaKind, *(() if has(row, "objects") else OBJECTS)}
    row_format = answers.format_of(plain)
    for key in row_format.turns if row_format else ():
        if isinstance(plain.get(key), list):
            plain[key] = _without_parts(plain[key], key, found, plain_tags)
    record = answers.read(plain)
    if isinstance(record, DropReason):
        return record
    if not isinstance(record, Conversation):
        raise RowError("has media beside a prompt of plain text", "name the keys instruction and output")
    return MultimodalConversation(_placed(record, found))


def _without_parts(messages: list[Any], key: str, found: Found, plain_tags: Collection[str]) -> list[Any]:
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


def _read_turns(key: str, turns: Turns) -> Turns:
    """The same key with messages whose media parts are read."""
    return replace(turns, as_messages=lambda value: turns.as_messages(_without_parts(value, key, {}, ())))


VQA = Format(
    RowFormat.VQA,
    records=frozenset({MultimodalConversation}),
    spellings=(
        *beside((TEXT_AND_ANSWER,), *KEYS),
        *beside(answers.SPELLINGS, *KEYS),
    ),
    rare_spellings=answers.SPELLINGS,
    expected='{"image_path", "text", "answer"} | {"messages", "images"}',
    known=answers.KNOWN | {*KEYS, *TEXT_AND_ANSWER, "objects"},
    read=read,
    turns={key: _read_turns(key, turns) for key, turns in answers.TURNS.items()},
)
