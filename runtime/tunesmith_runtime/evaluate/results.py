"""From EvalScope's JSON to typed scores and to the failures that it reports. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic.alias_generators import to_camel

from tunesmith_api.evaljob import Result

HIDDEN_REFUSALS = frozenset({"model_length", "content_filter"})
"""Stop reasons that EvalScope sets for refused requests. It would score the text of the refusal as an answer."""

UNREADABLE = "unreadable"
"""Metric of every benchmark: the share of its answers that could not be read."""


@dataclass(frozen=True)
class Completeness:
    """Number of questions asked, and of those without an answer."""

    asked: int
    failed: int


def own_scores(benchmark: str, report: Mapping[str, Any]) -> list[Result]:
    """Return the scores of users' rows as `scores` does, under the names of our API: `rougeL` for EvalScope's `rouge_l`."""
    return [each.model_copy(update={"metric": to_camel(each.metric)}) for each in scores(benchmark, report)]


def scores(benchmark: str, report: Mapping[str, Any]) -> list[Result]:
    """Return the scores in a report of EvalScope (schema version 2), the primary score first.

    A metric has EvalScope's name (`accuracy`), or its full key (`accuracy:pass_at_k[k=1]`) if several metrics of the report
    have the same name.
    """
    metrics = report["metrics"]
    names = Counter(metric["identity"]["name"] for metric in metrics)
    primary = report.get("primary_metric_identity")
    ordered = sorted(metrics, key=lambda metric: metric["identity"] != primary)
    return [
        Result(
            benchmark=benchmark,
            metric=metric["identity"]["name"] if names[metric["identity"]["name"]] == 1 else _key(metric["identity"]),
            value=metric["score"],
            samples=metric["num"],
        )
        for metric in ordered
    ]


def unreadable(benchmark: str, reviews: Iterable[Mapping[str, Any]]) -> list[Result]:
    """Return the share of answers from which nothing could be extracted; no result if the benchmark extracts nothing."""
    extracted = [review["sample_score"]["score"].get("extracted_prediction") for review in reviews]
    texts = [text for text in extracted if isinstance(text, str)]
    if not texts:
        return []
    share = sum(not text.strip() for text in texts) / len(texts)
    return [Result(benchmark=benchmark, metric=UNREADABLE, value=round(share, 4), samples=len(texts))]


def completeness(report: Mapping[str, Any], predictions: Iterable[Mapping[str, Any]]) -> Completeness:
    """Count the questions asked and those that failed: by EvalScope's summary, and by the refusals that it hides."""
    summary = report.get("execution_summary") or {}
    hidden = sum(bool(refusal(prediction)) for prediction in predictions)
    missing = max(summary.get("errored", 0), summary.get("requested", 0) - summary.get("succeeded", 0))
    return Completeness(summary.get("requested", 0), missing + hidden)


def disagreement(report: Mapping[str, Any], predictions: int, questions: int) -> str | None:
    """Return how EvalScope's counts differ from the number of questions; None if all agree."""
    summary = report.get("execution_summary") or {}
    counts = {"asked": summary.get("requested"), "scored": summary.get("succeeded"), "stored": predictions}
    if all(count == questions for count in counts.values()):
        return None
    listed = ", ".join(f"{'an unknown number' if count is None else count} {kind}" for kind, count in counts.items())
    return f"of {questions} questions, {listed}"


def refusal(prediction: Mapping[str, Any]) -> str | None:
    """Return the server's error message if it refused to answer; None if it answered."""
    output = prediction.get("model_output") or {}
    if output.get("error"):
        return str(output["error"])
    for choice in output.get("choices") or []:
        if choice.get("stop_reason") in HIDDEN_REFUSALS:
            return str(choice["message"]["content"])
    return None


def _key(identity: Mapping[str, Any]) -> str:
    dimensions = ",".join(f"{name}={value}" for name, value in sorted(identity.get("dimensions", {}).items()))
    return f"{identity['name']}:{identity['aggregation']}" + (f"[{dimensions}]" if dimensions else "")
