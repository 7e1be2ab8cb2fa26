"""Encoder of prompts whose answers the model writes itself."""

from __future__ import annotations

import json

from tunesmith_runtime.data.encoders.conversation import render
from tunesmith_runtime.data.encoding import Encoding
from tunesmith_runtime.data.examples import IGNORED, Example
from tunesmith_runtime.data.records import Conversation, Prompt
from tunesmith_runtime.data.text_encoder import TextEncoder


def encode_prompt(record: Prompt, text: TextEncoder) -> Encoding[Example]:
    """The tokens that a server makes of the prompt, without labels; the prompt itself and the columns, which rewards read.

    Raises RowError where the template refuses the prompt.
    """
    if isinstance(record.prompt, str):
        [ids] = yield from text.ids(record.prompt)
        ids = text.leading_ids + ids
    else:
        conversation = Conversation(record.prompt, record.tools)
        [ids] = yield from text.ids(render(conversation, text, len(record.prompt), add_generation_prompt=True))
    return Example(ids, [IGNORED] * len(ids), columns=json.dumps(vars(record), ensure_ascii=False, default=dict))
