"""Decontamination: which texts count as a question of an evaluation, and which rows have one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_api.datasets import EvalDataset
from tunesmith_api.failures import FailureClass
from tunesmith_runtime.data import contamination
from tunesmith_runtime.data.contamination import WORDS, Questions, question_of, read_questions, words_of
from tunesmith_runtime.data.records import Continuation, Conversation, PlainText, Preference, Record
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.workdir import DataFile

DUCKS = "Janet's ducks lay 16 eggs per day. She eats three for breakfast every morning and sells the rest."
BOLTS = "A robe takes 2 bolts of blue fiber and half that much white fiber. How many bolts in total does it take?"
TASK = "Answer the following question about numbers, think step by step and end with one number only: "
CHINESE = "小明每天早上吃三个鸡蛋,剩下的鸡蛋都卖掉,他每天卖掉多少个?"
SHORT = "Who wrote Hamlet?"


def questions(*texts: str) -> Questions:
    made = Questions()
    for text in texts:
        assert made.add(text)
    return made


def asked(question: str, answer: str = "yes", system: str = "Be kind.") -> Conversation:
    turns = (("system", system), ("user", question), ("assistant", answer))
    return Conversation([{"role": role, "content": text} for role, text in turns])


@pytest.mark.parametrize(
    "record",
    [
        asked(DUCKS),
        asked(f"Translate into French: {DUCKS} Thank you."),
        asked("Invent a riddle.", answer=f"Here it is: {DUCKS}"),
        asked("Go on.", system=DUCKS.upper().replace(".", " !")),
        Continuation(f"Q: {BOLTS}\nA:", " 3"),
        PlainText(f"Chapter 1. {BOLTS} Chapter 2."),
        Preference(asked(DUCKS), asked(DUCKS, "no")),
        asked(f"请翻译:{CHINESE}"),
        asked("who wrote   HAMLET"),
        Continuation(SHORT, " Shakespeare"),
        PlainText(SHORT),
    ],
    ids=lambda record: type(record).__name__,
)
def test_a_row_with_a_question_is_found_wherever_it_stands(record: Record) -> None:
    assert questions(DUCKS, BOLTS, CHINESE, SHORT).find_in(record)


@pytest.mark.parametrize(
    "record",
    [
        asked(" ".join(words_of(DUCKS)[: WORDS - 1])),
        asked("Quiz me.", answer=SHORT),
        asked(f"{SHORT} And when?"),
        asked("Janet's ducks sell eggs. How many bolts does a robe take?"),
        Continuation("2 - 2 =", " 0"),
        PlainText(""),
    ],
)
def test_a_row_that_shares_fewer_words_or_has_a_short_question_within_a_text_is_kept(record: Record) -> None:
    assert questions(DUCKS, BOLTS, SHORT, "2 + 2 =").find_in(record) is None


def test_an_instruction_that_several_questions_share_is_no_question() -> None:
    found = questions(TASK + DUCKS, TASK + BOLTS, TASK + BOLTS)
    assert len(words_of(TASK)) > WORDS
    assert found.find_in(asked(f"{TASK}2 + 2")) is None
    assert found.find_in(asked(f"{TASK}{BOLTS}"))


def test_a_question_that_is_part_of_another_is_found_as_a_prompt() -> None:
    assert questions(DUCKS, f"{DUCKS} {BOLTS}").find_in(asked(DUCKS))


words = st.lists(st.text("abcdefgh", min_size=1, max_size=3), min_size=WORDS, max_size=30)


@given(question=words, before=words, after=words)
def test_a_long_question_within_any_text_is_found(question: list[str], before: list[str], after: list[str]) -> None:
    text = " ".join([*before, *question, *after])
    common = questions(" ".join(question)).find_in(PlainText(text))
    assert common is not None
    assert common in text


@pytest.mark.parametrize(
    ("row", "question"),
    [
        ({"question": "Q", "A": "1", "B": "2", "answer": "A"}, "Q"),
        ({"question": "Q", "choices": ["1", "2"], "answer": 1}, "Q"),
        ({"query": "Q", "response": "R"}, "Q"),
        ({"instruction": "Q", "input": "", "output": "R"}, "Q"),
        ({"prompt": "Q", "completion": "R"}, "Q"),
        ({"prompt": "Q"}, "Q"),
        ({"text": "Q"}, "Q"),
        ({"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "R"}]}, "Q"),
    ],
)
def test_the_question_of_a_row_is_read_from_its_column_or_by_its_format(row: dict[str, Any], question: str) -> None:
    assert question_of(row) == question


def test_a_row_without_a_question_is_refused() -> None:
    with pytest.raises(RowError, match="is in no known format"):
        question_of({"frage": "Q"})
    with pytest.raises(RowError, match="has no question"):
        question_of({"messages": [{"role": "assistant", "content": "R"}]})


def read(folder: Path, text: str, **dataset: Any) -> Questions:
    (folder / "0.jsonl").write_text(text)
    found = Questions()
    files = [DataFile(path="0.jsonl", uri="s3://tests/qa.jsonl", evaluation=0)]
    read_questions(folder, EvalDataset.model_validate({"uri": "s3://tests/qa.jsonl", **dataset}), files, found)
    return found


def test_questions_are_read_from_a_part_of_the_rows_with_renamed_columns(tmp_path: Path) -> None:
    text = '{"frage": "one"}\n{"frage": "two"}\n'
    found = read(tmp_path, text, columns={"frage": "question"}, split="test[:1]")
    assert [bool(found.find_in(PlainText(word))) for word in ("one", "two")] == [True, False]


def test_a_row_that_cannot_be_read_is_named_by_file_and_line_whatever_on_bad_row_says(tmp_path: Path) -> None:
    with pytest.raises(RunFailure, match=r"^BadRow: qa\.jsonl line 2: .*s3://tests/qa\.jsonl") as failure:
        read(tmp_path, '{"text": "one"}\n{"frage": "two"}\n')
    assert "decontaminate[].columns" in str(failure.value.hint)


def test_data_without_a_question_are_an_empty_dataset(tmp_path: Path) -> None:
    with pytest.raises(RunFailure) as failure:
        read(tmp_path, '{"question": "?"}\n')
    assert failure.value.failure is FailureClass.EMPTY_DATASET


def test_the_words_of_each_text_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asking, seen = questions(DUCKS), list[str]()

    def recorded(text: str) -> list[str]:
        seen.append(text)
        return words_of(text)

    monkeypatch.setattr(contamination, "words_of", recorded)
    assert asking.find_in(asked(BOLTS)) is None
    assert sorted(text for text in seen if text in (BOLTS, "yes", "Be kind.")) == sorted([BOLTS, "yes", "Be kind."])
