"""Encoder of continuations: plain text, without a chat template."""

from __future__ import annotations

from tunesmith_runtime.data.encoding import Encoding
from tunesmith_runtime.data.examples import Turn
from tunesmith_runtime.data.records import Continuation
from tunesmith_runtime.data.text_encoder import TextEncoder


def encode_continuation(record: Continuation, text: TextEncoder) -> Encoding[list[Turn]]:
    """The completion as the answer to the prompt."""
    prompt, answer = yield from text.answered(record.prompt, record.completion)
    return [text.turn(text.leading_ids + prompt, answer)]
