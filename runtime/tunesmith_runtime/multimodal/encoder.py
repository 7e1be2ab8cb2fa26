"""Conversations with media as conversations of text with slots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

from tunesmith_runtime.answers.coordinates import Size, family_of
from tunesmith_runtime.data.records import Box, Conversation, Media, MediaKind, MultimodalConversation, Part, Reference
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.media.colours import Conversion
from tunesmith_runtime.multimodal.processor import MediaProcessor
from tunesmith_runtime.multimodal.slots import SLOT
from tunesmith_runtime.multimodal.sources import MediaSource

READERS = 8
"""Threads that read pictures while rows are encoded. Decoders release Python's lock."""


@dataclass(frozen=True)
class ReadImage:
    """What is known of an image after it was read."""

    size: Size
    conversions: frozenset[Conversion]


@dataclass(frozen=True)
class MediaEncoder:
    """Reads the media of rows, and writes their places into the text."""

    processor: MediaProcessor
    source: MediaSource

    def images(self, record: MultimodalConversation) -> list[Future[ReadImage]]:
        """Begin to read the media of a record, in their order; each raises RowError where it cannot be read."""
        return [self._readers.submit(self._read, each) for each in all_media(record)]

    def conversation(self, record: MultimodalConversation, sizes: Sequence[Size]) -> Conversation:
        """Return the conversation with slots, and with what the processor writes for each.

        `sizes`: of its media. Raises RowError for boxes outside of their picture.
        """
        written = tuple(self.processor.written(size).text for size in sizes)
        messages = record.conversation.messages
        shown = [{**message, "content": self._text(message["content"], sizes)} for message in messages]
        return replace(record.conversation, messages=shown, slots=written)

    def quoted(self, record: Conversation) -> Conversation:
        """Return a conversation of text in which the tokens of media are plain text. Raises RowError."""
        quoted = self.processor.slots.quoted
        return replace(record, messages=[{**each, "content": quoted(each["content"])} for each in record.messages])

    @cached_property
    def _readers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(READERS, "pictures")

    def _read(self, media: Media) -> ReadImage:
        if media.kind is not MediaKind.IMAGE:
            raise RowError(
                f"has {media.kind} media, which this version does not train on", "keep rows with images and text alone"
            )
        picture = self.source.picture(media.sources[0])
        return ReadImage(Size(picture.pixels.width, picture.pixels.height), picture.conversions)

    def _text(self, parts: Sequence[Part], sizes: Sequence[Size]) -> str:
        return "".join(self._written(part, sizes) for part in parts)

    def _written(self, part: Part, sizes: Sequence[Size]) -> str:
        if isinstance(part, Media):
            return SLOT
        if isinstance(part, Box):
            return self._box(part, sizes)
        return self.processor.slots.quoted(part.text if isinstance(part, Reference) else part)

    def _box(self, box: Box, sizes: Sequence[Size]) -> str:
        if box.image >= len(sizes):
            raise RowError(f"has a box in image {box.image}, and {len(sizes)} images", "count images from 0")
        size = sizes[box.image]
        return family_of(self.processor.model_type).write(box, size, self.processor.written(size).resized or size)


def all_media(record: MultimodalConversation) -> Iterator[Media]:
    """Yield the media of a record in the order of their slots."""
    for message in record.conversation.messages:
        yield from (part for part in message["content"] if isinstance(part, Media))
