"""Slots: the places of media in messages, and what the model's processor writes there.

Messages hold a character for each slot, and one for each token of the processor that their author typed as plain text. Both survive
the chat template, so that a typed token is never taken for a slot.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tunesmith_runtime.data.row_error import RowError

SLOT = "\U000f0000"
"""Character of a slot, of a plane for private use."""
FIRST_QUOTE = 0xF0010
"""First of the characters that stand for typed tokens."""


@dataclass(frozen=True)
class Slots:
    """How a model's chat template and tokenizer write media."""

    token: str
    """What the chat template writes for an image."""
    typed: tuple[str, ...]
    """Tokens that are plain text where an author typed them."""

    @cached_property
    def quotes(self) -> Mapping[str, str]:
        """The character that stands for each typed token."""
        return {chr(FIRST_QUOTE + index): token for index, token in enumerate(self.typed)}

    def quoted(self, text: str) -> str:
        """Return a text of an author with a character in place of each typed token.

        Raises RowError for a text with these characters.
        """
        if any(character in text for character in (SLOT, *self.quotes)):
            raise RowError("has a character of a plane for private use, U+F0000 and above", "remove the character")
        for character, token in self.quotes.items():
            text = text.replace(token, character)
        return text

    def parts(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return messages for a chat template: the content is a list of parts where it has slots."""
        return [
            {**message, "content": [*_parts(message["content"])]}
            if SLOT in (message.get("content") or "")
            else {**message}
            for message in messages
        ]

    def fill(self, rendered: str, written: Sequence[str]) -> str:
        """Return a rendered text with what the processor writes for each image, in their order, in place of the template's token.

        Raises RowError where the template wrote more images than there are, or none.
        """
        text, *rest = rendered.split(self.token)
        if len(rest) > len(written) or (written and not rest):
            raise RowError(
                f"has {len(written)} images, and the model's chat template writes {len(rest)}",
                "name a model whose chat template writes images, or set spec.training.chatTemplate",
            )
        return text + "".join(image + after for image, after in zip(written, rest, strict=False))


def without_slots(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message with spaces in place of its slots."""
    return {**message, "content": (message.get("content") or "").replace(SLOT, " ")}


def _parts(content: str) -> Iterator[dict[str, str]]:
    text, *rest = content.split(SLOT)
    if text:
        yield {"type": "text", "text": text}
    for after in rest:
        yield {"type": "image"}
        if after:
            yield {"type": "text", "text": after}
