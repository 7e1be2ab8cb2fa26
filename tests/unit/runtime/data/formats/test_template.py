"""A template of columns: each row is a turn of the chat template."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tunesmith_api.datasets import RowTemplate
from tunesmith_runtime.data import formats
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.formats.format import Format
from tunesmith_runtime.data.formats.template import template_format
from tunesmith_runtime.data.records import Conversation
from tunesmith_runtime.data.row_error import RowError

PLACE = "datasets[].template"
SUMS = RowTemplate(prompt="{a} + {b}?", completion="{sum}")


def form(template: RowTemplate) -> Format:
    return template_format(template, PLACE)


def turn(asked: str, answer: str) -> Conversation:
    return Conversation([{"role": "user", "content": asked}, {"role": "assistant", "content": answer}])


def test_columns_stand_in_the_texts() -> None:
    row = {"a": 1, "b": 2.5, "sum": "3.5", "images": ["x.png"], "id": 7}
    assert formats.read(row, form(SUMS)) == turn("1 + 2.5?", "3.5")
    assert formats.ignored(row, form(SUMS)) == {"images", "id"}


def test_a_system_prompt_comes_first() -> None:
    template = RowTemplate(system="Be {mood}.", prompt="{q}", completion="{a}")
    record = formats.read({"mood": "brief", "q": "?", "a": "!"}, form(template))
    assert isinstance(record, Conversation)
    assert record.messages[0] == {"role": "system", "content": "Be brief."}


def test_two_braces_are_a_literal_brace() -> None:
    template = RowTemplate(prompt='Return {{"sum": N}} of {a}', completion="{{{a}}}")
    assert formats.read({"a": "1"}, form(template)) == turn('Return {"sum": N} of 1', "{1}")


def test_braces_in_a_value_are_text() -> None:
    assert formats.read({"a": "{b}", "b": "}}", "sum": "{{"}, form(SUMS)) == turn("{b} + }}?", "{{")


@pytest.mark.parametrize("text", ["{", "}", "{}", "a{b", "{{a}", "{a}}", "{a{b}}"])
def test_a_brace_without_its_column_is_refused_at_apply(text: str) -> None:
    with pytest.raises(ValidationError, match=r"has a brace that encloses no column: write \{COLUMN\}"):
        RowTemplate(prompt=text, completion="{a}")


def test_a_missing_column_names_the_columns_of_the_row() -> None:
    with pytest.raises(
        RowError, match=r"has no 'sum', which datasets\[\]\.template\.completion names; its keys are a, b"
    ):
        formats.read({"a": "1", "b": "2"}, form(SUMS))


@pytest.mark.parametrize("value", [None, ["1"], {"x": 1}])
def test_a_column_without_text_is_refused(value: object) -> None:
    with pytest.raises(RowError, match=r"'sum' is .*, and datasets\[\]\.template\.completion needs a text or a number"):
        formats.read({"a": "1", "b": "2", "sum": value}, form(SUMS))


def test_an_empty_text_is_dropped_with_its_reason() -> None:
    assert formats.read({"a": "1", "b": "2", "sum": " "}, form(SUMS)) is DropReason.EMPTY_ANSWER
    assert formats.read({"q": " ", "a": "1"}, form(RowTemplate(prompt="{q}", completion="{a}"))) is DropReason.NO_PROMPT


names = st.text(st.characters(exclude_characters="{}", exclude_categories=["Cs"]), min_size=1, max_size=8)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(column=names, before=texts, after=texts, value=texts)
def test_every_text_is_a_template_once_its_braces_are_doubled(column: str, before: str, after: str, value: str) -> None:
    doubled = [text.replace("{", "{{").replace("}", "}}") for text in (before, after)]
    template = RowTemplate(prompt=f"x{doubled[0]}{{{column}}}{doubled[1]}", completion="y")
    assert formats.read({column: value}, form(template)) == turn(f"x{before}{value}{after}", "y")
