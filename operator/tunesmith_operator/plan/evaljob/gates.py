"""Scores against bars: results with their deltas, gates with a sentence each, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunesmith_api.evaljob import Gate, GateResult, Result, Verdict

DIGITS = 9
"""Decimals that count: 0.58 - 0.56 is not more than 0.02."""

HUGE = 1e9


@dataclass(frozen=True)
class Bar:
    """A kind of bar that a score must clear."""

    needs_baseline: bool
    clears: Callable[[float, float], bool]
    """(score or delta, bar)"""
    passed: str
    failed: str


BARS: dict[str, Bar] = {
    "min": Bar(False, lambda score, bar: score >= bar, "is at least {bar}", "is below {bar}"),
    "max": Bar(False, lambda score, bar: score <= bar, "is at most {bar}", "is above {bar}"),
    "max_regression": Bar(
        True,
        lambda delta, bar: -delta <= bar,
        "is no more than {bar} below the baseline's {baseline}",
        "is more than {bar} below the baseline's {baseline}",
    ),
    "min_improvement": Bar(
        True,
        lambda delta, bar: delta >= bar,
        "is at least {bar} above the baseline's {baseline}",
        "is less than {bar} above the baseline's {baseline}",
    ),
}


def compared(results: Sequence[Result], baseline: Sequence[Result]) -> list[Result]:
    """The model's results beside the baseline's."""
    scores = {(result.benchmark, result.metric): result.value for result in baseline}
    return [_compared(result, scores.get((result.benchmark, result.metric))) for result in results]


def judged(gates: Sequence[Gate], results: Sequence[Result]) -> list[GateResult]:
    """The result of each gate."""
    return [_judged(gate, results) for gate in gates]


def verdict(gates: Sequence[GateResult]) -> Verdict:
    """Passed if every gate was; without gates, Passed."""
    return Verdict.PASSED if all(gate.passed for gate in gates) else Verdict.FAILED


def short(*values: float) -> tuple[str, ...]:
    """Numbers with two decimals, or with as many as distinguish them (at most six); huge ones as 1e+09."""
    if any(abs(value) >= HUGE for value in values):
        return tuple(f"{value:.6g}" for value in values)
    for decimals in range(2, 7):
        texts = tuple(f"{value:.{decimals}f}" for value in values)
        if len(set(texts)) == len(set(values)):
            return texts
    return tuple(f"{value:.6g}" for value in values)


def _compared(result: Result, baseline: float | None) -> Result:
    if baseline is None:
        return result
    return result.model_copy(update={"baseline": baseline, "delta": round(result.value - baseline, DIGITS)})


def _judged(gate: Gate, results: Sequence[Result]) -> GateResult:
    bar, wanted = next((bar, wanted) for name, bar in BARS.items() if (wanted := getattr(gate, name)) is not None)
    result = next(
        (found for found in results if (found.benchmark, found.metric) == (gate.benchmark, gate.metric)), None
    )
    if result is None:
        return _verdict(gate, False, _no_metric(gate, results))
    if not math.isfinite(result.value):
        return _verdict(gate, False, f"{gate.metric} of {gate.benchmark} is {result.value}, which is not a score")
    if bar.needs_baseline and result.delta is None:
        return _verdict(gate, False, f"{gate.metric} of {gate.benchmark} has no baseline to compare with")
    figure = result.delta if bar.needs_baseline and result.delta is not None else result.value
    passed = bar.clears(round(figure, DIGITS), round(wanted, DIGITS))
    score, limit, baseline = short(result.value, wanted, result.baseline if result.baseline is not None else wanted)
    sentence = (bar.passed if passed else bar.failed).format(bar=limit, baseline=baseline)
    return _verdict(gate, passed, f"{gate.metric} {score} {sentence}")


def _no_metric(gate: Gate, results: Sequence[Result]) -> str:
    there = sorted({result.metric for result in results if result.benchmark == gate.benchmark})
    known = f"there is {', '.join(there)}" if there else "it has no results"
    return f"not passed: no score {gate.metric} was reported for {gate.benchmark}; {known}"


def _verdict(gate: Gate, passed: bool, message: str) -> GateResult:
    return GateResult(benchmark=gate.benchmark, metric=gate.metric, passed=passed, message=message[:512])
