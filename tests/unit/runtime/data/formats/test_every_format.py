"""Whatever a row holds, each format reads it, drops it or refuses it; and what it reads is of a declared type."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_api.datasets import RowFormat
from tunesmith_runtime.data import formats
from tunesmith_runtime.data.drop_reasons import DropReason
from tunesmith_runtime.data.duplicates import digest_of
from tunesmith_runtime.data.formats import FORMATS
from tunesmith_runtime.data.row_error import RowError

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(
    ["<image>", "<bbox> and <ref-object>", '{"name": "f"}', "true", "", " "]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats(allow_nan=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=2),
    max_leaves=5,
)
blocks = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "tool_use", "tool_result", "thinking", "image", "image_url"]) | values},
    optional={
        key: words | values for key in ("text", "thinking", "name", "id", "input", "content", "image_url", "source")
    },
)
roles = st.sampled_from(["user", "assistant", "system", "tool", "tool_call", "tool_response", "human"])
turns = st.fixed_dictionaries(
    {},
    optional={
        "role": roles | values,
        "from": st.sampled_from(["human", "gpt", "function_call", "observation"]) | values,
        "content": words | st.lists(blocks, max_size=3) | values,
        "value": words | values,
        "human": words,
        "assistant": words,
        "weight": values,
        "tool_calls": values,
    },
)
chat = st.tuples(words, words).map(
    lambda pair: [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
)
fields = words | chat | st.lists(turns, max_size=3) | turns | values
keys = sorted({key for form in FORMATS.values() for key in form.known} | formats.REFUSED.keys())
rows = st.dictionaries(st.sampled_from(keys), fields, max_size=6)


@pytest.mark.parametrize("name", sorted(FORMATS))
@given(data=st.data())
def test_a_row_is_read_dropped_or_refused(name: RowFormat, data: st.DataObject) -> None:
    form = FORMATS[name]
    spelling = data.draw(st.sampled_from((*form.spellings, *form.rare_spellings)))
    row: dict[str, Any] = {**data.draw(rows), **{key: data.draw(fields) for key in spelling}}
    try:
        record = formats.read(row, form)
        formats.ignored(row, form)
    except RowError:
        return
    assert isinstance(record, DropReason) or type(record) in form.records
    if not isinstance(record, DropReason):
        assert len(digest_of(record)) == 16


@given(row=rows)
def test_a_row_has_a_format_or_is_refused_with_its_keys(row: dict[str, Any]) -> None:
    for form in FORMATS.values():
        try:
            found = formats.detect(row, form.records)
        except RowError:
            assert not form.matches(row)
        else:
            assert found.matches(row)
