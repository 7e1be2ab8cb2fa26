"""{"query": "…", "response": "…", "system": "…", "history": [["…", "…"]]}, for the chat template: the format of ms-swift.

{question, answer}, {question, response} and {instruction, input, response}, or context as in Dolly, are further spellings.
"""

from __future__ import annotations

from typing import Any

from tunesmith_api.datasets import RowFormat
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.formats.alpaca import history, turn
from tunesmith_runtime.data.formats.format import Format
from tunesmith_runtime.data.formats.messages import answered
from tunesmith_runtime.data.records import Conversation
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.row_fields import has, keys_of, text_of
from tunesmith_runtime.messages import asks

SPELLINGS = (("query", "response"), ("question", "answer"), ("question", "response"), ("instruction", "response"))
INSTRUCTION = "instruction"
"""The question to which INSTRUCTION_PARTS belong."""
INSTRUCTION_PARTS = ("input", "context")
PARTS = ("input", "context", "passage", "choices", "options", "A")
"""Keys that are a part of the question in many data sets, in no agreed form."""


def read(row: dict[str, Any]) -> Conversation | DropReason:
    """The turns of `history`, then the question and its answer."""
    found = next((spelling for spelling in SPELLINGS if has(row, *spelling)), None)
    if found is None:
        raise RowError(f"has no 'query' and 'response'; its keys are {keys_of(row)}")
    asked, answer = found
    question = text_of(row, asked)
    if asked == INSTRUCTION:
        further = (text_of(row, key, "") for key in INSTRUCTION_PARTS)
        question = "\n".join(part for part in (question, *further) if part)
    _check_is_whole(row, asked, answer)
    return answered(row, [*history(row), *turn(question, text_of(row, answer))])


def _check_is_whole(row: dict[str, Any], asked: str, answer: str) -> None:
    """Raise RowError where the question has parts in other columns, which would be left out."""
    for key in PARTS if asked == "question" else ():
        if asks(row.get(key)):
            columns = f'{{prompt: "{{{key}}}\\n{{{asked}}}", completion: "{{{answer}}}"}}'
            raise RowError(
                f"has '{key}' beside '{asked}', which may be a part of the question",
                f"write the question by datasets[].template, such as {columns}, or remove the key",
                key,
            )


QUERY_RESPONSE = Format(
    RowFormat.QUERY_RESPONSE,
    records=frozenset({Conversation}),
    spellings=SPELLINGS,
    expected='{"query", "response"}',
    known=frozenset({*(key for spelling in SPELLINGS for key in spelling), "system", "history", "tools"}),
    known_with=dict.fromkeys(INSTRUCTION_PARTS, INSTRUCTION),
    read=read,
)
