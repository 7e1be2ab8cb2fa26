"""The tables of sentences: every name in a hint is known, every row can be reached, and no text is too long to read."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_api.symptoms import LINE_CHARACTERS, find_symptom
from tunesmith_operator.plan.failures import cluster_messages as words
from tunesmith_operator.plan.failures.cluster_messages import Row, interpret

POD_FACTS = {"namespace", "node", "pull_secrets", "fewer_devices"}
TABLES: dict[str, tuple[tuple[Row, ...], set[str]]] = {
    "PULLING": (words.PULLING, POD_FACTS),
    "STARTING": (words.STARTING, POD_FACTS),
    "SCHEDULING": (words.SCHEDULING, POD_FACTS),
    "EVICTION": (words.EVICTION, POD_FACTS),
    "REJECTION": (words.REJECTION, POD_FACTS),
    "ADMISSION": (words.ADMISSION, {"namespace"}),
}
EACH_TABLE = pytest.mark.parametrize("table", TABLES)


@EACH_TABLE
def test_a_hint_names_only_known_facts(table: str) -> None:
    rows, facts = TABLES[table]
    for row in rows:
        named = {name for _, name, _, _ in string.Formatter().parse(row.hint) if name}
        assert named <= facts | set(row.pattern.groupindex), row


@EACH_TABLE
def test_a_hint_is_a_single_sentence(table: str) -> None:
    for row in TABLES[table][0]:
        assert not row.hint.endswith((".", ";", " ")), row
        assert len(row.hint) < 300, row


@EACH_TABLE
@given(message=st.text(max_size=300))
def test_no_message_causes_an_error(table: str, message: str) -> None:
    rows, facts = TABLES[table]
    found = interpret(rows, message, dict.fromkeys(facts, "x"))
    assert found is None or found.hint


def test_of_long_text_only_the_beginning_is_read() -> None:
    """Some of it is anybody's: it must not cost more than a sentence does."""
    assert interpret(words.SCHEDULING, "Insufficient cpu", {}) is not None
    assert interpret(words.SCHEDULING, " " * words.READ_CHARACTERS + "Insufficient cpu", {}) is None
    assert find_symptom("CUDA out of memory") is not None
    assert find_symptom(" " * LINE_CHARACTERS + "CUDA out of memory") is None
