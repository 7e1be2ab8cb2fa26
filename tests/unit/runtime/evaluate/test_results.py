from __future__ import annotations

from typing import Any

import pytest

from tunesmith_runtime.evaluate.results import completeness, disagreement, own_scores, refusal, scores, unreadable


def metric(name: str, score: float, aggregation: str = "mean", **dimensions: Any) -> dict[str, Any]:
    return {"identity": {"name": name, "aggregation": aggregation, "dimensions": dimensions}, "score": score, "num": 20}


def answered(stop_reason: str = "stop", content: str = "fruit") -> dict[str, Any]:
    return {"model_output": {"error": None, "choices": [{"stop_reason": stop_reason, "message": {"content": content}}]}}


def test_a_metric_has_evalscopes_name() -> None:
    (result,) = scores("words", {"metrics": [metric("accuracy", 0.75)]})
    assert (result.benchmark, result.metric, result.value, result.samples) == ("words", "accuracy", 0.75, 20)


def test_metrics_of_equal_name_have_their_full_key_and_the_primary_metric_comes_first() -> None:
    report = {
        "metrics": [metric("rouge", 0.1, variant="1"), metric("rouge", 0.2, variant="l"), metric("bleu", 0.3)],
        "primary_metric_identity": metric("rouge", 0.2, variant="l")["identity"],
    }
    assert [result.metric for result in scores("words", report)] == [
        "rouge:mean[variant=l]",
        "rouge:mean[variant=1]",
        "bleu",
    ]


def test_metrics_of_own_rows_have_the_names_of_the_api() -> None:
    report = {"metrics": [metric("rouge_l", 0.1), metric("accuracy", 0.5), metric("character_error_rate", 0.2)]}
    assert [each.metric for each in own_scores("own", report)] == ["rougeL", "accuracy", "characterErrorRate"]


def reviewed(extracted: str | None) -> dict[str, Any]:
    return {"sample_score": {"score": {"extracted_prediction": extracted}}}


def test_unreadable_is_the_share_of_answers_without_extracted_text() -> None:
    (result,) = unreadable("words", map(reviewed, ["B", "", " ", "fruit", "C", "C"]))
    assert (result.benchmark, result.metric, result.value, result.samples) == ("words", "unreadable", 0.3333, 6)


def test_a_benchmark_that_extracts_nothing_has_no_unreadable_share() -> None:
    assert unreadable("words", [reviewed(None)]) == []


def test_errors_and_refusals_are_counted() -> None:
    report = {"execution_summary": {"requested": 5, "succeeded": 4, "errored": 1}}
    predictions = [
        answered(),
        answered("max_tokens"),
        answered("model_length", "This model's maximum context length is 8 tokens"),
    ]
    assert completeness(report, predictions).failed == 2
    assert completeness(report, predictions).asked == 5
    assert refusal(predictions[2]) == "This model's maximum context length is 8 tokens"
    assert refusal(predictions[1]) is None


def test_a_lost_question_counts_as_failed() -> None:
    assert completeness({"execution_summary": {"requested": 5, "succeeded": 4, "errored": 0}}, []).failed == 1


def test_equal_counts_have_no_disagreement() -> None:
    report = {"execution_summary": {"requested": 5, "succeeded": 5, "errored": 0}}
    assert disagreement(report, predictions=5, questions=5) is None


@pytest.mark.parametrize(
    ("summary", "predictions", "difference"),
    [
        (None, 5, "of 5 questions, an unknown number asked, an unknown number scored, 5 stored"),
        ({"requested": 4, "succeeded": 4}, 4, "of 5 questions, 4 asked, 4 scored, 4 stored"),
        ({"requested": 5, "succeeded": 5}, 4, "of 5 questions, 5 asked, 5 scored, 4 stored"),
        ({"requested": 5}, 5, "of 5 questions, 5 asked, an unknown number scored, 5 stored"),
    ],
)
def test_a_report_that_does_not_count_every_question_is_not_complete(
    summary: dict[str, int] | None, predictions: int, difference: str
) -> None:
    assert disagreement({"execution_summary": summary}, predictions, questions=5) == difference
