"""From users' rows with pictures to the questions that EvalScope asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith_api.evaljob import BenchmarkDataset, BenchmarkType
from tunesmith_runtime.answers.coordinates import Size
from tunesmith_runtime.data import formats
from tunesmith_runtime.data.formats.format import Format
from tunesmith_runtime.data.media_files import MediaFiles, resolved
from tunesmith_runtime.data.records import (
    Box,
    Conversation,
    Media,
    MediaKind,
    MultimodalConversation,
    Part,
    Record,
    Reference,
)
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.row_fields import has
from tunesmith_runtime.evaluate.box_text import BoxText
from tunesmith_runtime.evaluate.measures import MEASURES
from tunesmith_runtime.evaluate.pictures import Pictures, SentPicture
from tunesmith_runtime.evaluate.rows import PLACE, Row, answered, question_and_answer, refuse_tools
from tunesmith_runtime.multimodal.sources import shown

WITH_PICTURES: frozenset[type[Record]] = frozenset({MultimodalConversation})
ANSWERS = ("answer", "caption", "text")
"""Keys of an answer, of which the first that a row has may hold several right ones."""
SHOWN = 80


@dataclass(frozen=True)
class PictureRows:
    """Converts rows of a data set to {messages, references, pictures}: the question with paths of pictures, the right answers, and
    the names of the pictures in the row."""

    dataset: BenchmarkDataset
    pictures: Pictures
    boxes: BoxText

    def convert(self, row: Row, files: MediaFiles | None, uri: str) -> tuple[Row, set[str]]:
        """Convert a row of the file `uri`, whose pictures are among `files`, and return the keys that are not read.

        Raises RowError; RunFailure (BadSpec) for boxes and a model whose coordinates are not known.
        """
        kind = self.dataset.type
        row, others = first_answer(formats.rename(row, self.dataset.columns or {}), kind)
        row_format = detect(row)
        refuse_tools(row, row_format)
        record = answered(formats.read(row, row_format))
        names = [media.sources[0] for media in _pictures_of(record)]
        asked, answer = question_and_answer(_conversation(resolved(record, files, uri)))
        sent = [self.pictures.copy(media.sources[0]) for message in asked for media in _media(message["content"])]
        write = _Writer(self.boxes, [each.size for each in sent])
        references = [write.text(answer["content"]), *others]
        _check_references(kind, references)
        messages = write.messages(asked, iter(sent))
        asked_row = {"messages": messages, "references": references, "pictures": [*map(shown, names)]}
        return asked_row, formats.ignored(row, row_format)


def detect(row: Row) -> Format:
    """The format of a row by its keys. Raises RowError unless it has pictures and an answer."""
    found = formats.detect(row, WITH_PICTURES, f"{PLACE}.columns")
    if found.records <= WITH_PICTURES:
        return found
    known = ", ".join(formats.yielding(WITH_PICTURES))
    raise RowError(
        f"is of format {found.name}, which has no picture", f"write the rows as {known}, or set {PLACE}.type: qa"
    )


def first_answer(row: Row, kind: BenchmarkType) -> tuple[Row, list[str]]:
    """Return the row with the first of its right answers, and the others. Raises RowError for a list of anything but texts."""
    key = next((key for key in ANSWERS if has(row, key)), None)
    if key is None or not isinstance(row[key], list) or kind is BenchmarkType.GROUNDING:
        return row, []
    texts = row[key]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise RowError(f"'{key}' is {texts!r:.{SHOWN}}; expected a string, or several in a list", field=key)
    return {**row, key: texts[0]}, texts[1:]


def _check_references(kind: BenchmarkType, references: Sequence[str]) -> None:
    """Raise RowError where no answer can be right."""
    measure = MEASURES[kind]
    if any(map(measure.is_readable, references)):
        return
    hint = "correct the answer, or remove the row"
    if kind is BenchmarkType.GROUNDING:
        hint = "write the answer with <bbox>, and the boxes in objects: {bbox: [[x1, y1, x2, y2]]}"
    raise RowError(f"has the answer {references[0]!r:.{SHOWN}}, in which there is no {measure.unit}", hint)


def _conversation(record: Record) -> Conversation:
    assert isinstance(record, MultimodalConversation), f"{type(record).__name__} is not in WITH_PICTURES"
    return record.conversation


def _pictures_of(record: Record) -> list[Media]:
    """The pictures of the question, of which there is at least one. Raises RowError for other media and media in other places."""
    *asked, answer = _conversation(record).messages
    for index, message in enumerate([*asked, answer]):
        for media in _media(message["content"]):
            place = f"messages[{index}]"
            if media.kind is not MediaKind.IMAGE:
                raise RowError(f"{place} has {media.kind} media, which this version does not ask about", field=place)
            if message["role"] != "user":
                raise RowError(
                    f"{place} has an image, and is not of the user", "move it to a message of the user", place
                )
    found = [media for message in asked for media in _media(message["content"])]
    if not found:
        raise RowError("has no image", f"name it in image_path, or set {PLACE}.type: qa for rows of text")
    return found


def _media(parts: Sequence[Part]) -> Iterator[Media]:
    yield from (part for part in parts if isinstance(part, Media))


@dataclass(frozen=True)
class _Writer:
    """Writes the parts of messages as EvalScope reads them."""

    boxes: BoxText
    sizes: Sequence[Size]
    """Of the pictures of the row, in their order."""

    def messages(self, messages: Sequence[Row], sent: Iterator[SentPicture]) -> list[Row]:
        """Return messages whose content is a text, or a list of texts and paths of pictures."""
        return [{**message, "content": self._content(message["content"], sent)} for message in messages]

    def text(self, parts: Sequence[Part]) -> str:
        """Return the text of parts without media."""
        return "".join(map(self._text, parts))

    def _content(self, parts: Sequence[Part], sent: Iterator[SentPicture]) -> Any:
        if not any(_media(parts)):
            return self.text(parts)
        content: list[dict[str, str]] = []
        for part in parts:
            if isinstance(part, Media):
                content.append({"type": "image", "image": str(next(sent).file)})
            elif content and content[-1]["type"] == "text":
                content[-1]["text"] += self._text(part)
            else:
                content.append({"type": "text", "text": self._text(part)})
        return content

    def _text(self, part: Part) -> str:
        if isinstance(part, Box):
            return self.boxes.write(part, self.sizes)
        assert not isinstance(part, Media), "media have no text"
        return part.text if isinstance(part, Reference) else part
