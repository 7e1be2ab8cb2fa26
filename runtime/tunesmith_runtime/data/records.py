"""Records: the typed content of rows, whatever their format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Conversation:
    """Messages in the form of chat templates, up to the last answer that is learned."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    learn_from: int = 0
    """Index from which answers are learned; earlier answers are context."""
    context: frozenset[int] = frozenset()
    """Indices of further answers that are context, because their weight is 0."""

    @property
    def first_question(self) -> int:
        """Index of the user's first message; the number of messages if there is none."""
        roles = [message["role"] for message in self.messages]
        return roles.index("user") if "user" in roles else len(roles)

    @property
    def learned(self) -> list[int]:
        """Indices of the answers that are learned. An answer before the first question is context."""
        first = max(self.first_question, self.learn_from)
        return [
            index
            for index, message in enumerate(self.messages)
            if index >= first and message["role"] == "assistant" and index not in self.context
        ]


@dataclass(frozen=True)
class Continuation:
    """A prompt and its completion as plain text, without a chat template."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class PlainText:
    """Text of which every token is learned."""

    text: str


Record = Conversation | Continuation | PlainText
