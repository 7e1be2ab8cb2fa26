"""The error of a picture that cannot be read."""

from __future__ import annotations

from enum import StrEnum


class PictureFault(StrEnum):
    """What is wrong with a picture."""

    EMPTY = "Empty"
    TOO_MANY_BYTES = "TooManyBytes"
    TOO_MANY_PIXELS = "TooManyPixels"
    UNKNOWN_FORMAT = "UnknownFormat"
    DAMAGED = "Damaged"
    UNKNOWN_RANGE = "UnknownRange"


class PictureError(ValueError):
    """A picture that cannot be read. The sentence follows the name of the picture; `hint` is what to do."""

    def __init__(self, fault: PictureFault, sentence: str, hint: str) -> None:
        super().__init__(sentence)
        self.fault = fault
        self.hint = hint
