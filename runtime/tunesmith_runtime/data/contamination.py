"""Finds training rows with questions of an evaluation (decontamination as for GPT-3: Brown et al., 2020, appendix C).

A row is contaminated if one of its prompts is a question, or if one of its texts has WORDS consecutive words that are in one
question only: words that several questions share are an instruction, or a passage that they are about. Words are compared in
lower case and without punctuation; a character of Chinese or Japanese is a word, and so is a sign of arithmetic. Answers of the evaluation are not read, as
short ones are everywhere.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tunesmith_api.datasets import EvalDataset
from tunesmith_api.failures import FailureClass
from tunesmith_runtime.data import formats
from tunesmith_runtime.data.dataset_rows import dataset_rows
from tunesmith_runtime.data.drop_reasons import MEANING, DropReason
from tunesmith_runtime.data.files.place import bad_row
from tunesmith_runtime.data.records import (
    Continuation,
    Conversation,
    Feedback,
    Labelled,
    MultimodalConversation,
    MultimodalPrompt,
    PlainText,
    Preference,
    Prompt,
    Record,
)
from tunesmith_runtime.data.row_error import RowError, row_errors
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.workdir import DataFile

WORDS = 13
"""Length of the sequences of words that are compared, as in GPT-3's paper."""
CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
SIGNS = "+*/^=<>%\u00d7\u00f7\u2212"
WORD = re.compile(rf"[{CJK}{SIGNS}]|-(?=\s*\d)|[^\W{CJK}]+")
ASKING: frozenset[type[Record]] = frozenset({Conversation, Continuation, PlainText, Prompt})
"""Records whose rows are looked for first."""
SHARED = 0
"""In place of the number of a question: several questions have the words."""
SHOWN = 100
"""Characters of the common text that a sentence shows."""


class Questions:
    """The questions of an evaluation, as hashes of their words."""

    def __init__(self) -> None:
        self._whole = set[int]()
        self._sequences = dict[int, int]()

    def add(self, question: str) -> bool:
        """Add a question; return whether it has a word."""
        words = words_of(question)
        whole = hash(tuple(words))
        if words and whole not in self._whole:
            self._whole.add(whole)
            number = len(self._whole)
            for _, sequence in _sequences(words):
                if self._sequences.setdefault(sequence, number) != number:
                    self._sequences[sequence] = SHARED
        return bool(words)

    def find_in(self, record: Record) -> str | None:
        """The words that a record has in common with a question; None if it is not contaminated."""
        words_once = cache(words_of)  # a prompt is one of the record's texts
        for prompt in prompts_of(record):
            words = words_once(prompt)
            if hash(tuple(words)) in self._whole:
                return " ".join(words)[:SHOWN]
        for text in _texts(record):
            words = words_once(text)
            for start, sequence in _sequences(words):
                if self._sequences.get(sequence, SHARED) != SHARED:
                    return " ".join(words[start : start + WORDS])[:SHOWN]
        return None


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, and its signs of arithmetic."""
    return WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def _sequences(words: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Start and hash of each sequence of WORDS words."""
    return ((start, hash(tuple(words[start : start + WORDS]))) for start in range(len(words) - WORDS + 1))


def prompts_of(record: Record) -> list[str]:
    """What a record asks: the messages of the user, the prompt, or a text as a whole."""
    match record:
        case Conversation(messages=messages) | Prompt(prompt=list() as messages) | Labelled(content=list() as messages):
            asked = [message.get("content") for message in messages if message.get("role") == "user"]
            return [text for text in asked if isinstance(text, str)]
        case Continuation(prompt=text) | Prompt(prompt=str() as text) | Labelled(content=str() as text):
            return [text]
        case PlainText(text=text):
            return [text]
        case MultimodalConversation(conversation=conversation):
            parts = [message["content"] for message in conversation.messages if message["role"] == "user"]
            return ["".join(part for part in each if isinstance(part, str)) for each in parts]
        case Preference(chosen=answer) | Feedback(answer=answer) | MultimodalPrompt(prompt=answer):
            return prompts_of(answer)
    return []


def _texts(value: Any) -> Iterator[str]:
    """All texts in a record."""
    if isinstance(value, str):
        yield value
    elif is_dataclass(value):
        yield from _texts(list(vars(value).values()))
    elif isinstance(value, Mapping):
        yield from _texts(list(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


def question_of(row: dict[str, Any]) -> str:
    """The question of a row of an evaluation: its column `question`, or what the row asks last in its format. Raises RowError."""
    if isinstance(row.get("question"), str):
        return str(row["question"])
    record = formats.read(row, formats.detect(row, ASKING, "decontaminate[].columns"))
    if isinstance(record, DropReason):
        raise RowError(f"has no question: {MEANING[record]}")
    if not (prompts := prompts_of(record)):
        raise RowError("has no question", "rename the column with the question: spec.decontaminate[].columns")
    return prompts[-1]


def read_questions(folder: Path, dataset: EvalDataset, files: Sequence[DataFile], into: Questions) -> None:
    """Read the questions of a data set, whose files are below `folder`.

    Raises RunFailure: BadRow with file and line, EmptyDataset if there is no question.
    """
    found = 0
    for file, place, row in dataset_rows(folder, files, dataset.split):
        try:
            with row_errors("cannot be read"):
                if isinstance(row, RowError):
                    raise row
                found += into.add(question_of(formats.rename(row, dataset.columns or {})))
        except RowError as error:
            raise bad_row(file.uri, place, str(error), error.hint) from error
    if not found:
        message = f"no row of {dataset.source} has a question"
        raise RunFailure(FailureClass.EMPTY_DATASET, message, "correct its rows, or remove it from spec.decontaminate")
