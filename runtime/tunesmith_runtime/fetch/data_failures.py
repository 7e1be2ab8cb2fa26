"""Failures of hubs and web servers about data sets: their clients name the field and the class of a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure

WORDS = {
    "spec.model.uri": "the uri of the data set",
    "a private model": "a private data set",
    "the model's folder": "the files",
    "the model's": "the data set's",
}
"""Words of hints about models -> words for data sets."""


@contextmanager
def about_data() -> Iterator[None]:
    """Within the block, turn a failure about a model into that about a data set."""
    try:
        yield
    except RunFailure as failure:
        is_missing = failure.failure is FailureClass.MODEL_NOT_FOUND
        hint = failure.hint
        for words, ours in WORDS.items():
            hint = hint.replace(words, ours) if hint else None
        class_ = FailureClass.DATASET_NOT_FOUND if is_missing else failure.failure
        raise RunFailure(class_, failure.message, hint) from failure
