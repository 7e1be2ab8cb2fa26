"""The reasons why a valid row is dropped."""

from __future__ import annotations

from enum import StrEnum


class DropReason(StrEnum):
    """Why a valid row is not trained on; counted in status.rows."""

    EMPTY_ANSWER = "EmptyAnswer"
    NO_ANSWER = "NoAnswer"
    NO_PROMPT = "NoPrompt"
    NOT_LEARNED = "NotLearned"
    TOO_LONG = "TooLong"
    ANSWER_CUT_OFF = "AnswerCutOff"
