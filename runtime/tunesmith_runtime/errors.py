"""Failures of a verb: a class from `tunesmith_api.failures` with its exit code, a message, and a hint."""

from __future__ import annotations

import errno

from tunesmith_api.failures import FAILURES, FailureClass
from tunesmith_api.symptoms import find_symptom


class RunFailure(Exception):
    """A failure whose cause is known.

    `message` says what happened and where (URI, file, line). `hint` says what to do, if it can be more specific than the hint
    of the class in `tunesmith_api.failures`.
    """

    def __init__(self, failure: FailureClass, message: str, hint: str | None = None) -> None:
        super().__init__(failure, message, hint)  # the arguments, with which another process rebuilds it
        self.failure = failure
        self.message = message
        self.hint = hint

    @property
    def exit_code(self) -> int:
        """The exit code of the class; 1 for classes that only the operator assigns."""
        return FAILURES[self.failure].exit_code or 1

    def __str__(self) -> str:
        return f"{self.failure}: {self.message}"


class NotFound(RunFailure):
    """There is no object at a URI. A caller that knows what was expected there raises `named(...)` instead."""

    def __init__(self, uri: str, message: str | None = None) -> None:
        super().__init__(
            FailureClass.BAD_SPEC, message or f"nothing at {uri}", "check the URI and create the bucket or folder"
        )
        self.uri = uri

    def __reduce__(self) -> tuple[type[NotFound], tuple[str, str]]:
        return NotFound, (self.uri, self.message)

    def named(self, failure: FailureClass, what: str) -> RunFailure:
        """Return this as a failure of class `failure` about `what`, such as `model` or `data set`."""
        return RunFailure(failure, f"{what} {self.uri}: {self.message}")


class StopRequested(BaseException):
    """SIGTERM was received. Not an Exception, so that no library handles it as an error and retries."""


def class_of(error: Exception) -> FailureClass:
    """Return the failure class of an unexpected error.

    Types that take seconds to import are compared by name. Texts are only read for types that do not quote user data, as
    ValueError may.
    """
    if isinstance(error, MemoryError):
        return FailureClass.OOM_KILLED
    if type(error).__name__ == "OutOfMemoryError":  # torch's
        return FailureClass.DEVICE_OUT_OF_MEMORY
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FailureClass.DISK_FULL
    has_library_text = isinstance(error, RuntimeError | OSError) or type(error).__name__ == "SafetensorError"
    known = find_symptom(f"{type(error).__name__}: {error}") if has_library_text else None
    return known.class_ if known else FailureClass.PROCESS_ERROR


def sharpened(failure: RunFailure, log_tail: str) -> RunFailure:
    """Return `failure` with the class of its root cause, if that is known.

    The root cause is the error that `failure` was raised from (for example an exhausted device, for a model that cannot be
    loaded) or, for an engine, a known error at the end of its log.
    """
    cause = failure.__cause__
    class_ = FailureClass.PROCESS_ERROR if not isinstance(cause, Exception) else class_of(cause)
    if class_ not in (FailureClass.PROCESS_ERROR, failure.failure):
        return RunFailure(class_, failure.message)
    known = find_symptom(log_tail) if failure.failure is FailureClass.ENGINE_FAILED else None
    return RunFailure(known.class_, f"{failure.message}: {known.line}") if known else failure
