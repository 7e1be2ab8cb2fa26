"""Our question and answer set as a benchmark of EvalScope: right is what equals the reference (see matching.py).

Its own `general_qa` measures the likeness of words (BLEU, ROUGE), which says little about short answers.
"""

from __future__ import annotations

from typing import Any

from evalscope.api.benchmark import BenchmarkMeta, DefaultDataAdapter
from evalscope.api.dataset import Sample
from evalscope.api.evaluator import TaskState
from evalscope.api.messages import dict_to_chat_message
from evalscope.api.registry import register_benchmark

from tunesmith_runtime.evaluate.benchmarks import QA
from tunesmith_runtime.evaluate.matching import answer_of, normalized

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
    """Rows of {messages, response} from local files; EvalScope's accuracy over the answers in their common form."""

    def load_from_disk(self, **kwargs: Any) -> Any:
        """Read .jsonl files, one for each subset."""
        return super().load_from_disk(use_local_loader=True)

    def record_to_sample(self, record: dict[str, Any]) -> Sample:
        """One row as a sample; the reference as it was written is kept beside its common form."""
        asked = [dict_to_chat_message(message) for message in record["messages"]]
        return Sample(input=asked, target=normalized(record["response"]), metadata={"reference": record["response"]})

    def extract_answer(self, prediction: str, task_state: TaskState) -> str:
        """The answer in its common form."""
        return normalized(answer_of(prediction))
