"""The error of a sound that cannot be read."""

from __future__ import annotations

from enum import StrEnum


class SoundFault(StrEnum):
    """What is wrong with a sound."""

    EMPTY = "Empty"
    TOO_MANY_BYTES = "TooManyBytes"
    TOO_LONG = "TooLong"
    UNKNOWN_FORMAT = "UnknownFormat"
    DAMAGED = "Damaged"
    UNKNOWN_RANGE = "UnknownRange"


class SoundError(ValueError):
    """A sound that cannot be read. The sentence follows the name of the sound; `hint` is what to do."""

    def __init__(self, fault: SoundFault, sentence: str, hint: str) -> None:
        super().__init__(sentence)
        self.fault = fault
        self.hint = hint
