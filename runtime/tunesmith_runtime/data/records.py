"""Records: the typed content of rows, whatever their format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunesmith_runtime.multimodal.encoder import ReadImage


@dataclass(frozen=True)
class Conversation:
    """Messages in the form of chat templates, up to the last answer that is learned."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    learn_from: int = 0
    """Index from which answers are learned; earlier answers are context."""
    weights: Mapping[int, float] = field(default_factory=dict)
    """Factors of the loss other than 1, by the index of the message. An answer of weight 0 is context."""
    slots: tuple[str, ...] = ()
    """What the processor of the model writes for the media, in the order of their slots in the messages."""
    images: tuple[ReadImage, ...] = ()
    """What is known of these media."""

    @property
    def has_context(self) -> bool:
        """Whether the weight of a message is 0."""
        return 0 in self.weights.values()

    @property
    def is_scaled(self) -> bool:
        """Whether the weight of a message is neither 0 nor 1."""
        return any(self.weights.values())

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
            if index >= first and message["role"] == "assistant" and self.weights.get(index) != 0
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


@dataclass(frozen=True)
class Prompt:
    """A prompt without its answer, and the other columns of its row, which rewards read."""

    prompt: str | list[dict[str, Any]]
    """Plain text, or messages for the chat template."""
    tools: list[dict[str, Any]] | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Labelled:
    """Text or messages with a class, the classes that apply, or numbers."""

    content: str | list[dict[str, Any]]
    label: int | float | str | tuple[int | float | str, ...]


@dataclass(frozen=True)
class Pair:
    """Two texts of similar meaning, or of the similarity `score`."""

    anchor: str
    other: str
    score: float | None = None


@dataclass(frozen=True)
class Contrast:
    """A text with texts of similar meaning and texts of another meaning: a triplet, where there is one of each."""

    anchor: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]


class MediaKind(StrEnum):
    """Kinds of media."""

    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"


@dataclass(frozen=True)
class Media:
    """A reference to an image, a video or a sound."""

    kind: MediaKind
    sources: tuple[str, ...]
    """A path relative to the media of the data set, an http(s), s3 or data URI; several for the frames of a video."""


@dataclass(frozen=True)
class Reference:
    """The name of an object in an image."""

    text: str


@dataclass(frozen=True)
class Box:
    """The place of an object in an image: x1, y1, x2, y2, or x, y of a point."""

    coordinates: tuple[float, ...]
    is_relative: bool
    """Whether the coordinates are shares of width and height. Otherwise they are pixels."""
    image: int = 0
    """Index of the image in the row."""


Part = str | Media | Reference | Box


@dataclass(frozen=True)
class MultimodalConversation:
    """A conversation with media: the content of each message is a list of `Part`."""

    conversation: Conversation


@dataclass(frozen=True)
class MultimodalPrompt:
    """A prompt with media and without its answer, and the other columns of its row, which rewards read."""

    prompt: MultimodalConversation
    columns: Mapping[str, Any] = field(default_factory=dict)

    def without_media(self) -> Prompt:
        """Return the prompt as rewards read it, with a tag in place of each medium."""
        conversation = self.prompt.conversation
        messages = [{**each, "content": "".join(map(_tagged, each["content"]))} for each in conversation.messages]
        return Prompt(messages, conversation.tools, self.columns)


def _tagged(part: Part) -> str:
    if isinstance(part, Media):
        return f"<{part.kind}>"
    return part.text if isinstance(part, Reference) else part if isinstance(part, str) else str(list(part.coordinates))


Answered = Conversation | Continuation | MultimodalConversation
"""A prompt with its answer. In a conversation, the messages from `learn_from` are the answer."""


@dataclass(frozen=True)
class Preference:
    """Two answers to one prompt, of which one is better. Both are of one type and have equal prompts."""

    chosen: Answered
    rejected: Answered
    margin: float | None = None
    """How much better the chosen answer is, for reward models."""


@dataclass(frozen=True)
class Feedback:
    """An answer that is good or bad."""

    answer: Answered
    is_good: bool


@dataclass(frozen=True)
class Transcription:
    """A sound and the text that is spoken in it."""

    media: Media
    text: str
    language: str | None = None
    """Code of ISO 639, such as fr or fr-CA; None where the row does not name one."""


Record = (
    Conversation
    | Continuation
    | PlainText
    | Preference
    | Feedback
    | Prompt
    | Labelled
    | Pair
    | Contrast
    | MultimodalConversation
    | MultimodalPrompt
    | Transcription
)


def answers_of(record: Record) -> tuple[Answered, ...]:
    """Return the answers of a record with their prompts, or a prompt with media; empty for other records."""
    match record:
        case MultimodalPrompt(prompt):
            return (prompt,)
        case Preference(chosen, rejected):
            return chosen, rejected
        case Feedback(answer):
            return (answer,)
        case Conversation() | Continuation() | MultimodalConversation():
            return (record,)
    return ()


def with_answers(record: Record, change: Callable[[Answered], Answered]) -> Record:
    """Return a record with what `answers_of` returns changed."""
    match record:
        case MultimodalPrompt(prompt):
            changed = change(prompt)
            assert isinstance(changed, MultimodalConversation)
            return replace(record, prompt=changed)
        case Preference(chosen, rejected):
            return replace(record, chosen=change(chosen), rejected=change(rejected))
        case Feedback(answer):
            return replace(record, answer=change(answer))
        case Conversation() | Continuation() | MultimodalConversation():
            return change(record)
    return record
