"""A row that does not follow its format, as an error that names the fault."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tunesmith_runtime.errors import RunFailure


class RowError(ValueError):
    """A row or a message that does not follow its format. The sentence names the fault and what is expected.

    `hint` is what to write instead. `field` is the path in the row, such as `messages[0].content`.
    """

    def __init__(self, sentence: str, hint: str | None = None, field: str | None = None) -> None:
        super().__init__(sentence)
        self.hint = hint
        self.field = field


@contextmanager
def row_errors(what: str) -> Iterator[None]:
    """Within the block, turn an error of a template, a tokenizer or a library into a RowError.

    Errors of the machine, which do not depend on the row, pass unchanged.
    """
    try:
        yield
    except (RowError, RunFailure, MemoryError, OSError, ImportError):
        raise
    except BaseException as error:
        # tokenizers is written in Rust, and its panics do not derive from Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise RowError(f"{what}: {type(error).__name__}: {error}") from error
