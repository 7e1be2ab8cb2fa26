"""The failure of a check, and its texts."""

from __future__ import annotations

from collections.abc import Collection

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure

NAMES_SHOWN = 4
DETAIL_CHARACTERS = 400


def bad_model(uri: str, file: str | None, sentence: str, hint: str | None = None) -> RunFailure:
    """Return BadModel about a file of the model at `uri`, or about the model as a whole."""
    where = f"{uri.rstrip('/')}/{file}" if file else uri
    return RunFailure(FailureClass.BAD_MODEL, f"{where}: {sentence}", hint)


def first_of(names: Collection[str]) -> str:
    """Return the first few names, with the total number if there are more."""
    shown = ", ".join(sorted(names)[:NAMES_SHOWN])
    return shown if len(names) <= NAMES_SHOWN else f"{shown}, ... ({len(names)} in all)"


def detail(error: BaseException) -> str:
    """Return type and text of an exception on a single line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:DETAIL_CHARACTERS]}" if text else type(error).__name__
