"""Encoder of conversations with media."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.encoders.conversation import encode_conversation
from tunesmith_runtime.data.encoding import Encoding
from tunesmith_runtime.data.examples import Example, join_turns
from tunesmith_runtime.data.records import Conversation, MultimodalConversation
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.text_encoder import TextEncoder
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.multimodal.encoder import all_media


class NeedsProcessor(RunFailure):
    """Rows have media, and the processor of the model, which reads them, is not loaded."""

    def __init__(self) -> None:
        super().__init__(
            FailureClass.BAD_MODEL,
            "the rows have media, which the processor of the model reads in a pod",
            "set spec.until: data, and apply the job",
        )


def encode_multimodal(record: MultimodalConversation, text: TextEncoder) -> Encoding[list[Example] | DropReason]:
    """The examples of a conversation, each with the URIs of its images.

    Raises RowError for media that cannot be read, RunFailure (BadSpec) where the model reads no images.
    """
    conversation = yield from with_slots(record, text)
    turns = yield from encode_conversation(conversation, text)
    if isinstance(turns, DropReason):
        return turns
    return (yield from with_media(record, conversation, join_turns(turns), text))


def with_slots(record: MultimodalConversation, text: TextEncoder) -> Encoding[Conversation]:
    """The conversation with slots in place of its media, and with what is known of these. Raises as `encode_multimodal`."""
    if text.lacks_processor:
        raise NeedsProcessor()
    if text.media is None:
        raise RunFailure(
            FailureClass.BAD_SPEC,
            "the rows have images, and the base model reads text alone",
            "name a multimodal model in spec.model, or remove the images from the rows",
        )
    reading = text.media.images(record)
    yield ()  # while pictures are read, the rows that follow are begun
    images = tuple(image.result() for image in reading)
    return replace(text.media.conversation(record, [each.size for each in images]), images=images)


def with_media(
    record: MultimodalConversation, conversation: Conversation, examples: Sequence[Example], text: TextEncoder
) -> Encoding[list[Example]]:
    """The examples of a conversation with slots, each with the URIs of its images."""
    assert text.media
    slot_ids = text.media.processor.slot_ids
    written = yield from text.ids(*conversation.slots)
    slots = [_count(ids, slot_ids) for ids in written]
    uris = [each.sources[0] for each in all_media(record)]
    return [
        replace(example, media=uris[:count] or None, images=conversation.images[:count])
        for example in examples
        for count in [_images_in(example, slots, slot_ids)]
    ]


def _images_in(example: Example, slots: Sequence[int], slot_ids: Collection[int]) -> int:
    """The number of images whose slots an example has: the first ones. Raises RowError where it has a part of an image's slots."""
    left, images = _count(example.input_ids, slot_ids), 0
    while left > 0 and images < len(slots):
        left -= slots[images]
        images += 1
    if left:
        raise RowError(
            "has the token of an image in its text beside those of its images", "write the token in other words"
        )
    return images


def largest_budget(examples: Sequence[Example], text: TextEncoder) -> int | None:
    """The largest maxPixels with which those of these examples fit that have more than max_length tokens; None where there is none."""
    budgets = [_budget_for(example, text) for example in examples if len(example.input_ids) > text.max_length]
    known = [each for each in budgets if each is not None]
    return min(known) if known and len(known) == len(budgets) else None


def _budget_for(example: Example, text: TextEncoder) -> int | None:
    if text.media is None or not example.images:
        return None
    words = len(example.input_ids) - _count(example.input_ids, text.media.processor.slot_ids)
    return text.media.processor.largest_budget([each.size for each in example.images], text.max_length - words)


def _count(ids: Sequence[int], wanted: Collection[int]) -> int:
    return sum(token in wanted for token in ids)
