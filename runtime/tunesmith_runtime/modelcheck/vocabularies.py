"""Compares the tokens of two models, one of which learns the probabilities that the other gives to each token."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.modelcheck.tokenizer_files import TOKENIZER


def tokens_of(content: bytes) -> dict[str, int]:
    """Return the tokens with their ids of a tokenizer.json, added tokens included. Raises ValueError if it has another form.

    The form: https://huggingface.co/docs/tokenizers/api/models
    """
    try:
        parsed = json.loads(content)
        vocabulary = parsed["model"]["vocab"]
        own = (
            vocabulary.items()
            if isinstance(vocabulary, Mapping)
            else ((each[0], at) for at, each in enumerate(vocabulary))
        )
        added = ((each["content"], each["id"]) for each in parsed.get("added_tokens") or ())
        return {str(token): int(number) for part in (own, added) for token, number in part}
    except (KeyError, TypeError, IndexError, json.JSONDecodeError) as error:
        raise ValueError(f"{TOKENIZER} has no list of tokens: {error}") from error


def check_equal(student: str, tokens: Mapping[str, int], teacher: str, others: Mapping[str, int]) -> None:
    """Raise RunFailure (BadSpec) unless a student and a teacher, which messages name by these URIs, have the same tokens.

    The number of rows of their embeddings may differ, as those are often padded.
    """
    different = sorted(tokens.items() ^ others.items(), key=lambda each: (each[1], each[0]))
    if not different:
        return
    token, _ = different[0]
    raise RunFailure(
        FailureClass.BAD_SPEC,
        f"the teacher {teacher} has another vocabulary than {student}: {token!r} is {_number(token, others)} of the teacher "
        f"and {_number(token, tokens)} of the student ({len(others)} and {len(tokens)} tokens)",
        "name a model with the student's tokenizer in spec.gkd.teacher, such as a larger one of its family",
    )


def _number(token: str, tokens: Mapping[str, int]) -> str:
    return f"token {tokens[token]}" if token in tokens else "no token"
