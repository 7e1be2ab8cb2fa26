"""The reasons why a row is dropped."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class DropReason(StrEnum):
    """Why a row is not trained on; counted in status.rows."""

    EMPTY_ANSWER = "EmptyAnswer"
    NO_ANSWER = "NoAnswer"
    NO_PROMPT = "NoPrompt"
    NOT_LEARNED = "NotLearned"
    TOO_LONG = "TooLong"
    ANSWER_CUT_OFF = "AnswerCutOff"
    EQUAL_ANSWERS = "EqualAnswers"
    CONTAMINATED = "Contaminated"
    DUPLICATE = "Duplicate"
    BAD_ROW = "BadRow"


MEANING: Mapping[DropReason, str] = {
    DropReason.EMPTY_ANSWER: "an answer that would be learned has no text",
    DropReason.NO_ANSWER: "no message is of the assistant",
    DropReason.NO_PROMPT: "no answer follows a question",
    DropReason.NOT_LEARNED: "the weights of the messages exclude every answer",
    DropReason.TOO_LONG: "the row has more than training.maxLength tokens, and training.truncation is drop",
    DropReason.ANSWER_CUT_OFF: "truncation leaves no token of an answer",
    DropReason.EQUAL_ANSWERS: "the chosen and the rejected answer, or the texts that are compared, are equal",
    DropReason.CONTAMINATED: "the row has the text of a question of spec.decontaminate",
    DropReason.DUPLICATE: "an earlier row has the same text, but for white space",
    DropReason.BAD_ROW: "the row cannot be read, and onBadRow is Drop",
}
"""Each reason in a sentence. BadRow has a sentence of each row."""
