"""Vocabularies are compared token by token, whatever the form of tokenizer.json."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.modelcheck.vocabularies import check_equal, tokens_of


@pytest.mark.parametrize("vocabulary", [{"a": 0, "b": 1}, [["a", -1.0], ["b", -2.0]]])
def test_the_tokens_of_a_file_are_its_vocabulary_and_the_added_ones(vocabulary: Any) -> None:
    content = {"model": {"vocab": vocabulary}, "added_tokens": [{"id": 2, "content": "<end>"}]}
    assert tokens_of(json.dumps(content).encode()) == {"a": 0, "b": 1, "<end>": 2}


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"model": {"vocab": [1]}}'])
def test_a_file_of_another_form_has_no_tokens(content: bytes) -> None:
    with pytest.raises(ValueError, match="has no list of tokens"):
        tokens_of(content)


def test_vocabularies_of_one_size_with_other_tokens_are_refused() -> None:
    check_equal("s3://m/student", {"a": 0, "b": 1}, "s3://m/teacher", {"b": 1, "a": 0})
    with pytest.raises(RunFailure) as failure:
        check_equal("s3://m/student", {"a": 0, "b": 1}, "s3://m/teacher", {"a": 1, "b": 0})
    assert failure.value.failure is FailureClass.BAD_SPEC
    assert failure.value.message == (
        "the teacher s3://m/teacher has another vocabulary than s3://m/student: 'a' is token 1 of the teacher and token 0 of "
        "the student (2 and 2 tokens)"
    )
