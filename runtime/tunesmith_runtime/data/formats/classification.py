"""A text, two texts, a question or messages with "label": a class, a list of classes that apply, or one or several numbers.

The schema of ms-swift (seq_cls), and {text, label} of the data sets for transformers' sequence classification. Two texts are joined by
a line break; their names are those of GLUE's data sets.
"""

from __future__ import annotations

from typing import Any

from tunesmith_api.datasets import RowFormat
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.formats import prompts
from tunesmith_runtime.data.formats.format import Format, beside
from tunesmith_runtime.data.records import Labelled
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.data.row_fields import has, keys_of, kind_of, text_of

TEXTS = ("text", "sentence")
PAIRS = (("sentence1", "sentence2"), ("premise", "hypothesis"), ("text1", "text2"))


def read(row: dict[str, Any]) -> Labelled | DropReason:
    """The content and its label."""
    label = _label(row.get("label"))
    content = _content(row)
    is_empty = not content.strip() if isinstance(content, str) else not any(each["content"].strip() for each in content)
    return DropReason.NO_PROMPT if is_empty else Labelled(content, label)


def _content(row: dict[str, Any]) -> str | list[dict[str, Any]]:
    if pair := next((pair for pair in PAIRS if has(row, *pair)), None):
        return "\n".join(text_of(row, key) for key in pair)
    if key := next((key for key in TEXTS if has(row, key)), None):
        return text_of(row, key)
    if (found := prompts.find(row)) is None:
        raise RowError(f"has no text; its keys are {keys_of(row)}; expected {CLASSIFICATION.expected}")
    return prompts.read(row, found)


def _label(value: Any) -> int | float | str | tuple[int | float, ...]:
    if isinstance(value, list) and all(_is_single(each) for each in value):
        return tuple(value)
    if _is_single(value):
        return value  # type: ignore[no-any-return]
    shown = "empty" if value == "" else kind_of(value)
    raise RowError(f"'label' is {shown}; expected a class (a number or a text), or a list of them", field="label")


def _is_single(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, str) and bool(value.strip()))


CLASSIFICATION = Format(
    RowFormat.CLASSIFICATION,
    records=frozenset({Labelled}),
    spellings=beside((*PAIRS, *((key,) for key in TEXTS), *((key,) for key in prompts.KEYS)), "label"),
    expected='{"text", "label"}',
    known=prompts.READ | {*TEXTS, *(key for pair in PAIRS for key in pair), "label"},
    read=read,
    turns=prompts.TURNS,
)
