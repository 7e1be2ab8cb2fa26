"""A row of prompt and answer with "label" or LLaMA-Factory's "kto_tag": whether the answer is good. For KTO. It may have media, as in format
vqa."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tunesmith_api.datasets import RowFormat
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.formats import answers
from tunesmith_runtime.data.formats.format import Format, beside
from tunesmith_runtime.data.formats.placing import MEDIA_KEYS, reads_media
from tunesmith_runtime.data.records import Conversation, Feedback
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.row_fields import has

LABELS = ("label", "kto_tag")
_TRUTH = {"true": True, "false": False, "1": True, "0": False}


def read(row: dict[str, Any]) -> Feedback | DropReason:
    """The last answer and its label."""
    key = next(key for key in LABELS if has(row, key))
    is_good = _TRUTH.get(str(row[key]).strip().lower()) if isinstance(row[key], bool | int | str) else None
    if is_good is None:
        raise RowError(f"'{key}' is {row[key]!r:.80}; expected true or false", field=key)
    record = answers.read({name: value for name, value in row.items() if name not in LABELS})
    if isinstance(record, DropReason):
        return record
    if isinstance(record, Conversation):
        record = replace(record, learn_from=len(record.messages) - 1)
    return Feedback(record, is_good)


FEEDBACK = Format(
    RowFormat.FEEDBACK,
    records=frozenset({Feedback}),
    spellings=beside(answers.SPELLINGS, *LABELS),
    expected='{"messages", "label": true | false}',
    known=answers.KNOWN | MEDIA_KEYS | set(LABELS),
    read=reads_media(read, answers.TURNS),
    turns=answers.TURNS,
)
