"""Parts of messages that are images: {"type": "image_url", "image_url": {"url": "data:image/png;base64,…"}} (OpenAI's vision guide)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunesmith_runtime.data.formats.media import PART_KEYS
from tunesmith_runtime.data.records import Media, MediaKind, Part
from tunesmith_runtime.data.row_fields import kind_of
from tunesmith_runtime.messages import Message, text_at, wrong
from tunesmith_runtime.multimodal.sources import DATA
from tunesmith_runtime.serve.config import MAX_IMAGES

HTTPS = "https://"
TYPE = "image_url"
FULL = (None, "auto", "high")
"""Values of `detail` by which the model sees an image in the resolution of its processor, which is the only one that there is."""


def without_images(given: Sequence[Any]) -> list[Any]:
    """Return messages of a request with an empty text in place of each image. Raises RowError for media of other types."""
    return [
        {
            **each,
            "content": [_text(part, f"messages[{index}].content[{at}]") for at, part in enumerate(each["content"])],
        }
        if isinstance(each, dict) and isinstance(each.get("content"), list)
        else each
        for index, each in enumerate(given)
    ]


def with_images(messages: Sequence[Message], given: Sequence[Any]) -> list[Message]:
    """Return `messages`, which were read `without_images`, with a list of parts as the content where the given message has images.

    Raises RowError for an image that is not of OpenAI's form, and for too many images.
    """
    found = [
        {**message, "content": _parts(each["content"], f"messages[{index}].content")} if _has_images(each) else message
        for index, (message, each) in enumerate(zip(messages, given, strict=True))
    ]
    if (count := len(images_of(found))) > MAX_IMAGES:
        raise wrong("messages", f"has {count} images; at most {MAX_IMAGES} are read", "send fewer images")
    return found


def images_of(messages: Sequence[Message]) -> dict[str, str]:
    """Return the URL of each image by its place, such as `messages[0].content[1]`."""
    return {
        f"messages[{index}].content[{at}]": part.sources[0]
        for index, message in enumerate(messages)
        for at, part in enumerate(message["content"])
        if isinstance(part, Media)
    }


def _has_images(message: Any) -> bool:
    content = message.get("content") if isinstance(message, dict) else None
    return isinstance(content, list) and any(map(_is_image, content))


def _is_image(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == TYPE


def _text(part: Any, place: str) -> Any:
    type_ = part.get("type") if isinstance(part, dict) else None
    if isinstance(type_, str) and type_ in PART_KEYS and type_ != TYPE:
        hint = "write {type: image_url, image_url: {url: …}}" if PART_KEYS[type_] is MediaKind.IMAGE else None
        raise wrong(place, f"is of type {type_}; expected text or {TYPE}", hint)
    return {"type": "text", "text": ""} if type_ == TYPE else part


def _parts(content: Sequence[Any], place: str) -> list[Part]:
    return [_media(part, f"{place}[{at}]") if _is_image(part) else part["text"] for at, part in enumerate(content)]


def _media(part: dict[str, Any], place: str) -> Media:
    _check_keys(part, place, ("type", TYPE))
    value, place = part.get(TYPE), f"{place}.{TYPE}"
    if not isinstance(value, dict):
        raise wrong(place, f"is {kind_of(value)}; expected {{url}}")
    _check_keys(value, place, ("url", "detail"))
    if value.get("detail") not in FULL:
        raise wrong(f"{place}.detail", f"is {value['detail']!r:.40}; expected auto or high", "remove the key")
    url = text_at(value.get("url"), f"{place}.url")
    if not url.startswith((DATA, HTTPS)):
        raise wrong(f"{place}.url", f"is {url!r:.80}; expected a data: or https: URL", "write data:image/png;base64,…")
    return Media(MediaKind.IMAGE, (url,))


def _check_keys(value: dict[str, Any], place: str, known: Sequence[str]) -> None:
    for key, entry in value.items():
        if key not in known and entry is not None:
            raise wrong(f"{place}.{key:.40}", "is not supported", "remove the key")
