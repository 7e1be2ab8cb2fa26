"""Encoder of continuations: plain text, without a chat template."""

from __future__ import annotations

from tunesmith_runtime.data.examples import Turn
from tunesmith_runtime.data.records import Continuation
from tunesmith_runtime.data.text_encoder import TextEncoder


def encode_continuation(record: Continuation, text: TextEncoder) -> list[Turn]:
    """The completion as the answer to the prompt."""
    prompt = text.ids(record.prompt)
    answer = text.answer_ids(prompt, record.prompt + record.completion, record.completion)
    return [text.turn(text.leading_ids() + prompt, answer)]
