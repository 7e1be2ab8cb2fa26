"""Images, videos and sounds of a row: references in their order, and tags in the text that mark their places.

The tags <image>, <video> and <audio> are those of ms-swift and LLaMA-Factory; so are <ref-object> and <bbox>, whose values are
in `objects`: {"ref": […], "bbox": [[x1, y1, x2, y2]], "bbox_type": "real" | "norm1", "image_id": […]}. A tag in a text part of
typed content is plain text, as the place of a medium is that of its part.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from tunesmith_runtime.data.media_files import ELSEWHERE
from tunesmith_runtime.data.records import Box, Media, MediaKind, Part, Reference
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.row_fields import has, kind_of

KEYS: Mapping[str, MediaKind] = {
    key: kind for kind in MediaKind for key in (f"{kind}s", str(kind), f"{kind}_path", f"{kind}_paths")
}
"""Keys of a row that hold media."""
PART_KEYS: Mapping[str, MediaKind] = {
    **{str(kind): kind for kind in MediaKind},
    **{f"{kind}_url": kind for kind in MediaKind},
    "input_audio": MediaKind.AUDIO,
}
"""Types of content parts that are media, which are also the key of their value."""
TAGS: Mapping[str, str] = {**{f"<{kind}>": str(kind) for kind in MediaKind}, "<ref-object>": "ref", "<bbox>": "bbox"}
_TAG = re.compile("|".join(map(re.escape, TAGS)))
_NAMES: Mapping[str, tuple[str, str]] = {
    "image": ("picture", "pictures"),
    "video": ("video", "videos"),
    "audio": ("sound", "sounds"),
    "ref": ("name in objects.ref", "names in objects.ref"),
    "bbox": ("box in objects.bbox", "boxes in objects.bbox"),
}
"""What stands in the places of a tag, one and several."""
_QUOTE = "\udc00"
"""Half of a UTF-16 pair, which no row may hold: within a tag, it keeps the tag from being read."""

Found = dict[str, list[Media | Reference | Box]]
"""Media and objects of a row in their order, by the kind of their tag."""


def media_of(row: Mapping[str, Any]) -> Found:
    """The media of a row by kind. Raises RowError."""
    found: Found = {}
    for key, kind in KEYS.items():
        value = row.get(key)
        if value in (None, [], ""):
            continue
        listed = value if isinstance(value, list) else [value]
        found.setdefault(kind, []).extend(
            media(each, kind, f"{key}[{index}]" if isinstance(value, list) else key)
            for index, each in enumerate(listed)
        )
    return found


def media(value: Any, kind: MediaKind, place: str) -> Media:
    """A reference from a path or URL, {path} or {url}, or, for a video, the list of its frames. Raises RowError."""
    if kind is MediaKind.VIDEO and isinstance(value, list) and value:
        return Media(kind, tuple(_source(frame, f"{place}[{index}]") for index, frame in enumerate(value)))
    return Media(kind, (_source(value, place),))


def _source(value: Any, place: str) -> str:
    if isinstance(value, dict):
        value = next((value[key] for key in ("url", "path") if has(value, key)), None)
    if not isinstance(value, str) or not value.strip():
        shown = "empty" if isinstance(value, str) else kind_of(value)
        raise RowError(f"{place} is {shown}; expected a path or a URL", field=place)
    if value.startswith(ELSEWHERE):
        return value
    if "\0" in value or value.startswith(("/", "file:")) or ".." in re.split(r"[/\\]", value):
        raise RowError(
            f"{place} is {value!r:.80}, which is outside the folder of the data",
            "write a path relative to the folder of the data, without ..",
            place,
        )
    return value


def objects_of(row: Mapping[str, Any]) -> Found:
    """The names and the boxes in `objects`. Raises RowError."""
    objects = row.get("objects")
    if objects in (None, {}, []):
        return {}
    if not isinstance(objects, dict):
        raise RowError(f"'objects' is {kind_of(objects)}; expected {{ref, bbox}}", field="objects")
    names, boxes, images = (objects.get(key) or [] for key in ("ref", "bbox", "image_id"))
    for key, value in (("ref", names), ("bbox", boxes), ("image_id", images)):
        if not isinstance(value, list):
            raise RowError(f"objects.{key} is {kind_of(value)}; expected a list", field=f"objects.{key}")
    if not all(isinstance(name, str) for name in names):
        raise RowError("objects.ref has a value that is no string", field="objects.ref")
    type_ = objects.get("bbox_type") or "real"
    if type_ not in ("real", "norm1"):
        raise RowError(f"objects.bbox_type is {type_!r:.80}; expected real (pixels) or norm1 (shares)")
    if images and len(images) != len(boxes):
        raise RowError(f"objects has {len(boxes)} bbox and {len(images)} image_id; expected one for each bbox")
    boxes = [
        _box(box, type_ == "norm1", images[index] if images else 0, f"objects.bbox[{index}]")
        for index, box in enumerate(boxes)
    ]
    return {"ref": [Reference(name) for name in names], "bbox": boxes}


def _box(value: Any, is_relative: bool, image: Any, place: str) -> Box:
    numbers = value if isinstance(value, list) else []
    if len(numbers) not in (2, 4) or not all(type(number) in (int, float) for number in numbers):
        raise RowError(f"{place} is {value!r:.80}; expected [x1, y1, x2, y2] or [x, y]", field=place)
    if len(numbers) == 4 and (numbers[0] > numbers[2] or numbers[1] > numbers[3]):
        raise RowError(f"{place} is {numbers}, whose second corner is left of or above its first", field=place)
    if any(number < 0 or (is_relative and number > 1) for number in numbers):
        bound = "between 0 and 1, as bbox_type is norm1" if is_relative else "0 or more"
        raise RowError(f"{place} is {numbers}; expected numbers {bound}", field=place)
    if type(image) is not int or image < 0:
        raise RowError(f"objects.image_id has {image!r:.80}; expected the index of an image, from 0")
    return Box(tuple(numbers), is_relative, image)


def tags_of(kind: MediaKind | str) -> str:
    """The tag of a kind of media."""
    return f"<{kind}>"


def quoted(text: str, kinds: Collection[str]) -> str:
    """The text with the tags of these kinds as plain text, until `split` returns it."""
    return _TAG.sub(lambda tag: f"<{_QUOTE}{tag[0][1:]}" if TAGS[tag[0]] in kinds else tag[0], text)


def count_tags(text: str) -> dict[str, int]:
    """How often each kind of tag is in the text."""
    counts: dict[str, int] = {}
    for tag in _TAG.findall(text):
        counts[TAGS[tag]] = counts.get(TAGS[tag], 0) + 1
    return counts


def mismatch(kind: str, tags: int, values: int) -> RowError:
    """The error of a row whose tags of a kind are not as many as the media or objects."""
    tag = next(tag for tag, tagged in TAGS.items() if tagged == kind)
    one, several = _NAMES[kind]
    markers = f"{tags} marker" if tags == 1 else f"{tags} markers"
    found = f"{values} {one}" if values == 1 else f"{values} {several}"
    before = f", or nowhere to have the {several} before the first question" if kind in [*MediaKind] else ""
    return RowError(f"has {markers}, {found}; expected one {tag} for each", f"write {tag} once for each {one}{before}")


def split(text: str, found: Found) -> list[Part]:
    """The text with its tags replaced by the next media or object of their kind, which are taken out of `found`."""
    parts: list[Part] = []
    end = 0
    for tag in _TAG.finditer(text):
        if text[end : tag.start()]:
            parts.append(_unquoted(text[end : tag.start()]))
        parts.append(found[TAGS[tag[0]]].pop(0))
        end = tag.end()
    return [*parts, _unquoted(text[end:])] if text[end:] else parts


def _unquoted(text: str) -> str:
    return text.replace(_QUOTE, "")
