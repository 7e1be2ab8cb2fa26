"""The reasons why a valid row is dropped."""

from __future__ import annotations

from enum import StrEnum


class DropReason(StrEnum):
    """Why a valid row is not trained on; counted in status.rows."""

    EMPTY_ANSWER = "EmptyAnswer"
    """An answer that would be learned has no text."""
    NO_ANSWER = "NoAnswer"
    """A conversation has no message of the assistant."""
    NO_PROMPT = "NoPrompt"
    """An answer has no question before it."""
    NOT_LEARNED = "NotLearned"
    """The weights of the messages exclude every answer."""
    TOO_LONG = "TooLong"
    """The row has more than training.maxLength tokens, and training.truncation is drop."""
    ANSWER_CUT_OFF = "AnswerCutOff"
    """Truncation leaves no token of an answer."""
