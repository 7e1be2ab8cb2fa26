"""How a verb fails on purpose: with a class from `tunesmith_api.failures`, a sentence, and its exit code."""

from __future__ import annotations

import errno

from tunesmith_api.failures import FAILURES, FailureClass
from tunesmith_api.symptoms import find_symptom


class RunFailure(Exception):
    """A failure whose cause is known.

    `message` says what happened and where (URI, file, line); `hint` says what to change, where the hint of the class
    in `tunesmith_api.failures` can be bettered.
    """

    def __init__(self, failure: FailureClass, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.failure = failure
        self.message = message
        self.hint = hint

    @property
    def exit_code(self) -> int:
        """The exit code that says this class; 1 for a class that no process of ours exits with."""
        return FAILURES[self.failure].exit_code or 1

    def __str__(self) -> str:
        return f"{self.failure}: {self.message}"


class NotFound(RunFailure):
    """Nothing is at a URI. Who asked for it knows what it was to be, and says so with `named`."""

    def __init__(self, uri: str, message: str | None = None) -> None:
        super().__init__(
            FailureClass.BAD_SPEC, message or f"nothing at {uri}", "check the URI and create the bucket or folder"
        )
        self.uri = uri

    def named(self, failure: FailureClass, what: str) -> RunFailure:
        """The same as a failure of class `failure` about `what` (such as `model` or `data set`)."""
        return RunFailure(failure, f"{what} {self.uri}: {self.message}")


class StopRequested(BaseException):
    """SIGTERM has come. Not an Exception, so that no library takes it for a failure of its own and tries again."""


def class_of(error: Exception) -> FailureClass:
    """The class of an error that nobody foresaw; by name where its type would take seconds to import, and by its words
    where a library has no type for it. Words of other types (ValueError) may be those of the user's data."""
    if isinstance(error, MemoryError):
        return FailureClass.OOM_KILLED
    if type(error).__name__ == "OutOfMemoryError":  # torch's
        return FailureClass.DEVICE_OUT_OF_MEMORY
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FailureClass.DISK_FULL
    in_words = isinstance(error, RuntimeError | OSError) or type(error).__name__ == "SafetensorError"
    known = find_symptom(f"{type(error).__name__}: {error}") if in_words else None
    return known.class_ if known else FailureClass.PROCESS_ERROR


def sharpened(failure: RunFailure, log_tail: str) -> RunFailure:
    """`failure` by its cause, where that is known better: by the error it was raised from (a model can't be loaded, as
    the device is full), or, of an engine, whose process says no more, by the end of its log."""
    cause = failure.__cause__
    class_ = FailureClass.PROCESS_ERROR if not isinstance(cause, Exception) else class_of(cause)
    if class_ not in (FailureClass.PROCESS_ERROR, failure.failure):
        return RunFailure(class_, failure.message)
    known = find_symptom(log_tail) if failure.failure is FailureClass.ENGINE_FAILED else None
    return RunFailure(known.class_, f"{failure.message}: {known.line}") if known else failure
