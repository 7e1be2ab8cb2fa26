"""Encoders turn a record into turns of token ids. Each record type has a module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.encoders.continuation import encode_continuation
from tunesmith_runtime.data.encoders.conversation import encode_conversation
from tunesmith_runtime.data.encoders.joined import encode_joined_contrast, encode_joined_pair
from tunesmith_runtime.data.encoders.labelled import encode_labelled
from tunesmith_runtime.data.encoders.plain_text import encode_plain_text
from tunesmith_runtime.data.encoders.texts import encode_contrast, encode_pair
from tunesmith_runtime.data.encoding import Encoding
from tunesmith_runtime.data.examples import Example
from tunesmith_runtime.data.records import Continuation, Contrast, Conversation, Labelled, Pair, PlainText, Record
from tunesmith_runtime.data.text_encoder import TextEncoder

ENCODERS: dict[type[Record], Callable[[Any, TextEncoder], Encoding[Any]]] = {
    Conversation: encode_conversation,
    Continuation: encode_continuation,
    PlainText: encode_plain_text,
}
"""For each record type the function that encodes such a record as turns (list[Turn]), or drops it (DropReason)."""

TEXTS: dict[type[Record], Callable[[Any, TextEncoder], Encoding[list[Example]]]] = {
    Labelled: encode_labelled,
    Pair: encode_pair,
    Contrast: encode_contrast,
}
"""For each record type without an answer the function that encodes its texts, of which every token is read."""

JOINED: dict[type[Record], Callable[[Any, TextEncoder], Encoding[list[Example] | DropReason]]] = {
    Pair: encode_joined_pair,
    Contrast: encode_joined_contrast,
}
"""The same for methods that read the texts of a pair as one sequence."""
