"""Exactly the values that the table of compatibility declares available are implemented in the runtime."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from tunesmith_api import compatibility
from tunesmith_api.compatibility import available
from tunesmith_api.datasets import RowFormat
from tunesmith_api.tuners import TUNER_FACTS
from tunesmith_runtime.data import formats
from tunesmith_runtime.data.encoders import ENCODERS, TEXTS
from tunesmith_runtime.data.encoders.rated import RATED
from tunesmith_runtime.data.records import MultimodalConversation, MultimodalPrompt, Prompt, Record, Transcription
from tunesmith_runtime.serve.engines import ENGINES
from tunesmith_runtime.train.methods import METHODS
from tunesmith_runtime.train.tuners import TUNERS

LEARNED = frozenset[type[Record]]().union(*(method.learns_from for method in METHODS.values()))
"""The records that the methods of this version learn from."""


@pytest.mark.parametrize(
    ("field", "implemented"),
    [
        ("method", METHODS),
        ("tuner", TUNERS),
        ("tuner", TUNER_FACTS),
        ("datasets[].format", {*formats.yielding(LEARNED), RowFormat.AUTO}),
    ],
)
def test_exactly_the_available_values_are_implemented(field: str, implemented: Collection[str]) -> None:
    assert set(available(field)) == {str(value) for value in implemented}


def test_exactly_the_engines_of_the_table_are_implemented() -> None:
    assert {str(engine) for row in compatibility.ENGINES for engine in row.values} == {*map(str, ENGINES)}


def test_each_record_that_a_method_learns_from_is_read_and_encoded() -> None:
    read = set().union(*(row_format.records for row_format in formats.FORMATS.values()))
    assert read >= LEARNED
    assert {*ENCODERS, *TEXTS, *RATED, Prompt, MultimodalPrompt, MultimodalConversation, Transcription} >= LEARNED
