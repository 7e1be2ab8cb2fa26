"""A prompt: its tokens and, for a prompt with images, the further inputs of the model. Images are written and processed as in training."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tunesmith_runtime.answers.coordinates import Size
from tunesmith_runtime.data.encoding import Known
from tunesmith_runtime.data.records import Conversation, MultimodalConversation
from tunesmith_runtime.data.row_error import RowError, row_errors
from tunesmith_runtime.data.text_tokenizer import TextTokenizer
from tunesmith_runtime.media.pictures import Picture
from tunesmith_runtime.multimodal.encoder import MediaEncoder, all_media
from tunesmith_runtime.multimodal.processor import TYPES, MediaProcessor
from tunesmith_runtime.multimodal.slots import Slots
from tunesmith_runtime.multimodal.sources import MediaSource

Pictures = Mapping[str, Picture]
"""The pictures of a request, by their URLs."""
NO_PICTURES: Pictures = {}


@dataclass(frozen=True)
class Prompt:
    """What a row begins with."""

    tokens: Sequence[int]
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    """Further inputs of the model for the images; empty for text alone."""


class MediaPrompts:
    """Encodes conversations for a multimodal model. Tokens of media that an author typed are plain text."""

    def __init__(self, processor: MediaProcessor, tokenizer: Any) -> None:
        self._processor = processor
        self._encoder = MediaEncoder(processor, MediaSource(lambda _: None))  # the pictures are read already
        self._tokenize = TextTokenizer(tokenizer, processor.slots.quotes)
        self.ids("")  # the first call sets a state of the tokenizer, which threads share

    @property
    def slots(self) -> Slots:
        """How the chat template writes images."""
        return self._processor.slots

    def conversation(self, messages: Sequence[Mapping[str, Any]], pictures: Pictures) -> Conversation:
        """Return messages, whose content is text or a list of parts, as a conversation with slots. Raises RowError."""
        record = _record(messages)
        pixels = [pictures[media.sources[0]].pixels for media in all_media(record)]
        return self._encoder.conversation(record, [Size(each.width, each.height) for each in pixels])

    def ids(self, text: str) -> list[int]:
        """Return the tokens of a rendered conversation. Raises RowError."""
        [found] = self._tokenize([text], Known())
        if isinstance(found, RowError):
            raise found
        return found

    def inputs(
        self, tokens: Sequence[int], written: Sequence[str], messages: Sequence[Mapping[str, Any]], pictures: Pictures
    ) -> dict[str, Tensor]:
        """Return the further inputs of the model for a prompt with what is `written` for each image of the messages.

        Raises RowError where the prompt has other slots than those of the images, or the processor fails on an image.
        """
        expected = sum(_count(self.ids(each), self._processor.slot_ids) for each in written)
        if (found := _count(tokens, self._processor.slot_ids)) != expected:
            raise RowError(
                f"has {found} tokens of images after the model's chat template, and its images have {expected}"
            )
        images = [pictures[media.sources[0]].pixels for media in all_media(_record(messages))]
        with row_errors("has images that the model's processor refuses"):
            features = self._processor.features([images])
        types = self._processor.token_types(torch.tensor([tokens])) if features else None
        return features if types is None else {**features, TYPES: types}


def _record(messages: Sequence[Mapping[str, Any]]) -> MultimodalConversation:
    """Return messages as training reads them: their content is a list of parts."""
    listed = [
        {**each, "content": [each["content"]] if isinstance(each["content"], str) else each["content"]}
        for each in messages
    ]
    return MultimodalConversation(Conversation(listed))


def _count(ids: Sequence[int], wanted: Collection[int]) -> int:
    return sum(token in wanted for token in ids)
