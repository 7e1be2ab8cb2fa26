"""JSON is read as it was written, or refused in a sentence."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_runtime.data.json_text import MAX_DEPTH, parse, walk
from tunesmith_runtime.data.row_error import RowError


def test_nesting_up_to_the_limit_is_read() -> None:
    assert parse("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    with pytest.raises(RowError, match="nested deeper"):
        parse("[" * (MAX_DEPTH + 1) + "1" + "]" * (MAX_DEPTH + 1))


def test_a_walk_over_many_values_takes_no_memory() -> None:
    value = [[{"a": index}] for index in range(10_000)]
    tracemalloc.start()
    places = sum(1 for _ in walk(value))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert places == 1 + 10_000 * 6
    assert peak < 20_000


@pytest.mark.parametrize(
    ("row", "place"),
    [
        ({"a": [1, {"b": "\ud83d"}]}, r"a\[1\]\.b has half"),
        ({"a": {"\ud83d": 1}, "b": 2}, r"a\.\ud83d has half"),
        ([["x"], "\ud83d"], r"\[1\] has half"),
        ("\ud83d", "the text has half"),
    ],
)
def test_the_place_of_half_a_pair_is_named(row: Any, place: str) -> None:
    with pytest.raises(RowError, match=place):
        parse(json.dumps(row))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(value=json_values)
def test_json_is_read_as_it_was_written(value: Any) -> None:
    assert parse(json.dumps(value)) == value
    assert parse(json.dumps(value, ensure_ascii=False)) == value


@given(text=st.text() | st.text(alphabet='{}[]",:\\ud80123eE+-.NaIfinty', max_size=40))
def test_any_text_is_json_or_refused_in_a_sentence(text: str) -> None:
    try:
        value = parse(text)
    except RowError:
        return
    assert all(len(path) <= MAX_DEPTH for path, _ in walk(value))
