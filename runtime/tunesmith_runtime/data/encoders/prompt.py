"""Encoder of prompts whose answers the model writes itself."""

from __future__ import annotations

import json

from tunesmith_runtime.data.encoders.conversation import render
from tunesmith_runtime.data.encoders.multimodal import with_media, with_slots
from tunesmith_runtime.data.encoding import Encoding, Tokens
from tunesmith_runtime.data.examples import IGNORED, Example
from tunesmith_runtime.data.records import Conversation, MultimodalPrompt, Prompt
from tunesmith_runtime.data.text_encoder import TextEncoder


def encode_prompt(record: Prompt | MultimodalPrompt, text: TextEncoder) -> Encoding[Example]:
    """The tokens that a server makes of the prompt, without labels; the prompt itself and the columns, which rewards read.

    Raises RowError where the template refuses the prompt, and for media as `encode_multimodal`.
    """
    if isinstance(record, MultimodalPrompt):
        conversation = yield from with_slots(record.prompt, text)
        ids = yield from _rendered(conversation, text)
        example = _example(ids, record.without_media())
        return (yield from with_media(record.prompt, conversation, [example], text))[0]
    if isinstance(record.prompt, str):
        [ids] = yield from text.ids(record.prompt)
        return _example(text.leading_ids + list(ids), record)
    conversation = Conversation(record.prompt, record.tools)
    if text.media is not None:
        conversation = text.media.quoted(conversation)
    return _example((yield from _rendered(conversation, text)), record)


def _rendered(conversation: Conversation, text: TextEncoder) -> Encoding[Tokens]:
    [ids] = yield from text.ids(render(conversation, text, len(conversation.messages), add_generation_prompt=True))
    return ids


def _example(ids: Tokens, record: Prompt) -> Example:
    return Example(ids, [IGNORED] * len(ids), columns=json.dumps(vars(record), ensure_ascii=False, default=dict))
