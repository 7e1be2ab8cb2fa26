"""Our benchmark of questions and answers for EvalScope (see answers/matching.py), and our parser of choices (see answers/choices.py).

EvalScope's `general_qa` measures the overlap of words (BLEU, ROUGE), which says little about short answers. Its parser of
choices takes the last capital letter of any text.
"""

from __future__ import annotations

from typing import Any

from evalscope.api.benchmark import BenchmarkMeta, DefaultDataAdapter, MultiChoiceAdapter
from evalscope.api.dataset import Sample
from evalscope.api.evaluator import TaskState
from evalscope.api.messages import dict_to_chat_message
from evalscope.api.registry import register_benchmark
from evalscope.benchmarks.ceval.ceval_adapter import CEVALAdapter

from tunesmith_runtime.answers.choices import read_choice
from tunesmith_runtime.answers.matching import answer_of, normalized
from tunesmith_runtime.evaluate.benchmarks import QA

DESCRIPTION = """
## Overview

Questions with a reference answer each. An answer is right if it equals the reference, after case, white space,
sentence marks at the end and pairs of quotes, brackets or markup around the whole are put aside on both sides.
"""


@register_benchmark(
    BenchmarkMeta(
        name=QA,
        pretty_name="Questions and answers",
        description=DESCRIPTION,
        dataset_id=QA,
        metric_list=["acc"],
        eval_split="test",
        evaluation_version="v1.0",
    )
)
class QuestionsAndAnswers(DefaultDataAdapter):  # type: ignore[misc]  # EvalScope ships no types
    """Rows of {messages, response} from local files; EvalScope's accuracy over normalized answers."""

    def load_from_disk(self, **kwargs: Any) -> Any:
        """Read .jsonl files, a file for each subset."""
        return super().load_from_disk(use_local_loader=True)

    def record_to_sample(self, record: dict[str, Any]) -> Sample:
        """Return a row as a sample, with the reference in its original and its normal form."""
        reference = record["response"]
        target = normalized(answer_of(reference) or reference)
        return Sample(input=messages_of(record["messages"]), target=target, metadata={"reference": reference})

    def extract_answer(self, prediction: str, task_state: TaskState) -> str:
        """Return the normalized answer; empty if it was cut off and does not equal the reference."""
        answer = normalized(prediction)
        return "" if cut_off(task_state) and answer != task_state.target else answer


def messages_of(rows: list[dict[str, Any]]) -> list[Any]:
    """Return EvalScope's messages with the content of ours."""
    messages = [dict_to_chat_message(dict(row)) for row in rows]
    for message, row in zip(messages, rows, strict=True):
        if isinstance(row["content"], str):
            message.content = row["content"]  # EvalScope would parse <think> and write it back in another form
    return messages


def cut_off(task_state: TaskState) -> bool:
    """Return whether the answer ended at maxTokens."""
    return bool(task_state.output) and task_state.output.stop_reason == "max_tokens"


def read_answers_only() -> None:
    """Make every benchmark of EvalScope score answers without thoughts, and without letters in prose.

    EvalScope's filters and its parser of letters are methods of base classes, which most benchmarks inherit. From an answer
    that cannot be read, empty text is extracted, which equals no reference.
    """
    filtered, extracted = DefaultDataAdapter.filter_prediction, MultiChoiceAdapter.extract_answer

    def filter_prediction(self: Any, prediction: str, task_state: TaskState) -> str:
        answer = answer_of(prediction)
        return "" if answer is None else filtered(self, answer, task_state)

    def extract_answer(self: Any, prediction: str, task_state: TaskState) -> str:
        if self.multiple_correct or not len(task_state.choices):
            return extracted(self, prediction, task_state)
        choices = [choice.value for choice in task_state.choices]
        return read_choice(prediction, choices, cut_off(task_state)) or ""

    DefaultDataAdapter.filter_prediction = filter_prediction
    MultiChoiceAdapter.extract_answer = extract_answer
    del CEVALAdapter.extract_answer  # it only sets the language of the parser that is replaced here


read_answers_only()
