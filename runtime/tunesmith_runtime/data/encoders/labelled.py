"""Encoder of texts that are classified."""

from __future__ import annotations

import json

from tunesmith_runtime.data.encoders.conversation import render
from tunesmith_runtime.data.encoding import Encoding
from tunesmith_runtime.data.examples import Example
from tunesmith_runtime.data.records import Conversation, Labelled
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.text_encoder import TextEncoder
from tunesmith_runtime.messages import unwritten


def encode_labelled(record: Labelled, text: TextEncoder) -> Encoding[list[Example]]:
    """The tokens of the text as a call of the tokenizer returns them, or of the messages as the chat template writes them; the
    label as JSON.

    Raises RowError where the template refuses the messages or leaves a part of them out.
    """
    if isinstance(record.content, str):
        [ids] = yield from text.whole(record.content)
    else:
        messages = record.content
        rendered = render(Conversation(messages), text, len(messages), add_generation_prompt=False)
        if lost := unwritten(messages, None, rendered):
            raise RowError(lost, "write its text into the content of a message that the template writes")
        [ids] = yield from text.ids(rendered)
    label = list(record.label) if isinstance(record.label, tuple) else record.label
    return [Example(ids, list(ids), is_text=True, columns=json.dumps(label))]
