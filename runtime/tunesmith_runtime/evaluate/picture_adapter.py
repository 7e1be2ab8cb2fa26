"""Our benchmarks of pictures for EvalScope, one for each type of rows (see measures.py).

EvalScope's `general_vqa` measures the overlap of words alone, and reads `<image 1>` in a question as the place of a picture.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from evalscope.api.benchmark import BenchmarkMeta, DefaultDataAdapter
from evalscope.api.dataset import Sample
from evalscope.api.evaluator import TaskState
from evalscope.api.metric import AggScore, SampleScore, Score
from evalscope.api.registry import register_benchmark
from evalscope.metrics.semantics.catalog import METRIC_DEFINITIONS
from evalscope.metrics.semantics.entry import MetricEntry

from tunesmith_api.evaljob import BenchmarkType
from tunesmith_runtime.evaluate.adapter import cut_off, messages_of
from tunesmith_runtime.evaluate.benchmarks import PICTURES
from tunesmith_runtime.evaluate.measures import MEANINGS, MEASURES, Measure

DESCRIPTION = """
## Overview

Questions about pictures with one or several right answers each.
"""
REFERENCES = "references"
"""Key of the right answers in a sample's metadata."""


class PictureQuestions(DefaultDataAdapter):  # type: ignore[misc]  # EvalScope ships no types
    """Rows of {messages, references, pictures} from local files, scored by the measure of their type."""

    @cached_property
    def _measure(self) -> Measure:
        return MEASURES[next(kind for kind, name in PICTURES.items() if name == self.name)]

    def load_from_disk(self, **kwargs: Any) -> Any:
        """Read .jsonl files, a file for each subset."""
        return super().load_from_disk(use_local_loader=True)

    def record_to_sample(self, record: dict[str, Any]) -> Sample:
        """Return a row as a sample. EvalScope sends the files of its pictures as data URIs, and stores their paths."""
        metadata = {key: record[key] for key in (REFERENCES, "pictures")}
        return Sample(input=messages_of(record["messages"]), target=record[REFERENCES][0], metadata=metadata)

    def extract_answer(self, prediction: str, task_state: TaskState) -> str:
        """Return the answer; empty if it cannot be read."""
        answer, measure = prediction.strip(), self._measure
        if not measure.is_readable(answer):
            return ""
        is_open = measure.needs_end and cut_off(task_state)
        return "" if is_open and not self._rate(answer, task_state)[measure.primary] else answer

    def match_score(
        self, original_prediction: str, filtered_prediction: str, reference: str, task_state: TaskState
    ) -> Score:
        """Return the scores of an answer."""
        value = self._rate(filtered_prediction, task_state)
        return Score(extracted_prediction=filtered_prediction, prediction=original_prediction, value=value)

    def aggregate_scores(self, sample_scores: list[SampleScore]) -> list[AggScore]:
        """Return the means of the answers' scores, and the scores of all answers together."""
        answers = [sample.score.extracted_prediction or "" for sample in sample_scores]
        references = [sample.sample_metadata[REFERENCES] for sample in sample_scores]
        ids = [sample.sample_id for sample in sample_scores]
        together = [
            AggScore(score=value, metric_name=metric, aggregation="mean", num=len(ids), ids=ids)
            for metric, value in self._measure.rate_all(answers, references).items()
        ]
        return [*super().aggregate_scores(sample_scores), *together]

    def _rate(self, answer: str, task_state: TaskState) -> dict[str, float]:
        return self._measure.rate(answer, task_state.metadata[REFERENCES])


def register(kind: BenchmarkType, name: str) -> None:
    """Make EvalScope know a benchmark and its metrics."""
    primary = MEASURES[kind].primary
    register_benchmark(
        BenchmarkMeta(
            name=name,
            pretty_name=f"Pictures ({kind})",
            description=DESCRIPTION,
            dataset_id=name,
            metric_list=[primary],
            primary_metric=primary,
            eval_split="test",
            evaluation_version="v1.0",
        )
    )(PictureQuestions)


METRIC_DEFINITIONS.update({metric: MetricEntry(baseline=meaning) for metric, meaning in MEANINGS.items()})
for kind, name in PICTURES.items():
    register(kind, name)
