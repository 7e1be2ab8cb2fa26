"""From EvalScope's JSON to typed scores, and to what went wrong on the way. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith_api.evaljob import Result

HIDDEN_REFUSALS = frozenset({"model_length", "content_filter"})
"""Stop reasons that EvalScope gives where the server refused a request; it scores the refusal's text as an answer."""

UNREADABLE = "unreadable"
"""Metric of every benchmark: the share of its answers that could not be read."""


@dataclass(frozen=True)
class Completeness:
    """How many questions there were, and how many got no answer."""

    asked: int
    failed: int


def scores(benchmark: str, report: Mapping[str, Any]) -> list[Result]:
    """The scores in a report of EvalScope (schema version 2), the primary one first.

    A metric is known by EvalScope's name for it (`accuracy`); where a report has several of one name, by its full key
    (`accuracy:pass_at_k[k=1]`).
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
    """The share of the answers from which nothing could be extracted; no result where a benchmark extracts nothing."""
    extracted = [review["sample_score"]["score"].get("extracted_prediction") for review in reviews]
    texts = [text for text in extracted if isinstance(text, str)]
    if not texts:
        return []
    share = sum(not text.strip() for text in texts) / len(texts)
    return [Result(benchmark=benchmark, metric=UNREADABLE, value=round(share, 4), samples=len(texts))]


def completeness(report: Mapping[str, Any], predictions: Iterable[Mapping[str, Any]]) -> Completeness:
    """Questions that were asked, and those that failed: EvalScope's own count, and the refusals that it hides."""
    summary = report.get("execution_summary") or {}
    hidden = sum(bool(refusal(prediction)) for prediction in predictions)
    missing = max(summary.get("errored", 0), summary.get("requested", 0) - summary.get("succeeded", 0))
    return Completeness(summary.get("requested", 0), missing + hidden)


def disagreement(report: Mapping[str, Any], predictions: int, questions: int) -> str | None:
    """Why the scores can't be over all questions, where EvalScope's counts say so or are not there; None where all agree."""
    summary = report.get("execution_summary") or {}
    counts = {"asked": summary.get("requested"), "scored": summary.get("succeeded"), "stored": predictions}
    if all(count == questions for count in counts.values()):
        return None
    told = ", ".join(f"{'an unknown number' if count is None else count} {what}" for what, count in counts.items())
    return f"of {questions} questions, {told}"


def refusal(prediction: Mapping[str, Any]) -> str | None:
    """What the server said where it refused to answer; None where it answered."""
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
