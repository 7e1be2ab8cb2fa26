from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_api.evaljob import Gate, Result, Verdict
from tunesmith_operator.plan.evaljob.gates import compared, judged, short, verdict


def result(value: float, baseline: float | None = None, metric: str = "accuracy") -> list[Result]:
    scored = Result(benchmark="qa", metric=metric, value=value, samples=100)
    other = [Result(benchmark="qa", metric=metric, value=baseline)] if baseline is not None else []
    return compared([scored], other)


@pytest.mark.parametrize(
    ("bar", "value", "baseline", "passed", "message"),
    [
        ({"min": 0.4}, 0.57, None, True, "accuracy 0.57 is at least 0.40"),
        ({"min": 0.57}, 0.57, None, True, "accuracy 0.57 is at least 0.57"),
        ({"min": 0.6}, 0.57, None, False, "accuracy 0.57 is below 0.60"),
        ({"min": 0.5004}, 0.5001, None, False, "accuracy 0.5001 is below 0.5004"),
        ({"max": 3}, 2.5, None, True, "accuracy 2.50 is at most 3.00"),
        ({"max": 2}, 2.5, None, False, "accuracy 2.50 is above 2.00"),
        ({"max_regression": 0.02}, 0.56, 0.58, True, "accuracy 0.56 is no more than 0.02 below the baseline's 0.58"),
        ({"max_regression": 0.01}, 0.56, 0.58, False, "accuracy 0.56 is more than 0.01 below the baseline's 0.58"),
        ({"max_regression": 0.0}, 0.58, 0.58, True, "accuracy 0.58 is no more than 0.00 below the baseline's 0.58"),
        ({"min_improvement": 0.5}, 0.57, 0.0, True, "accuracy 0.57 is at least 0.50 above the baseline's 0.00"),
        ({"min_improvement": 0.6}, 0.57, 0.0, False, "accuracy 0.57 is less than 0.60 above the baseline's 0.00"),
        ({"min_improvement": 0.1}, 0.57, None, False, "accuracy of qa has no baseline to compare with"),
    ],
)
def test_the_message_of_a_gate_has_score_and_bar(bar, value, baseline, passed, message):
    gates = judged([Gate(benchmark="qa", **bar)], result(value, baseline))
    assert (gates[0].passed, gates[0].message) == (passed, message)


def test_a_gate_on_a_missing_metric_fails_and_names_the_existing_metrics():
    gate = judged([Gate(benchmark="qa", metric="mean_acc", min=0.1)], result(0.9))[0]
    assert not gate.passed
    assert gate.message == "not passed: no score mean_acc was reported for qa; there is accuracy"
    assert "no results" in judged([Gate(benchmark="mmlu", min=0.1)], result(0.9))[0].message


@pytest.mark.parametrize(("share", "passed"), [(0.0, True), (0.1, True), (0.11, False), (1.0, False)])
def test_the_share_of_unreadable_answers_can_be_gated(share, passed):
    results = result(0.9) + result(share, 0.5, metric="unreadable")
    (gate,) = judged([Gate(benchmark="qa", metric="unreadable", max=0.1)], results)
    assert gate.passed is passed


def test_a_score_that_is_not_a_number_clears_no_bar():
    gate = judged([Gate(benchmark="qa", max=1)], result(float("nan")))[0]
    assert not gate.passed


def test_without_gates_the_verdict_is_passed():
    assert verdict([]) is Verdict.PASSED


def test_one_failed_gate_fails_the_verdict():
    gates = judged([Gate(benchmark="qa", min=0.1), Gate(benchmark="qa", min=0.9)], result(0.5))
    assert [gate.passed for gate in gates] == [True, False]
    assert verdict(gates) is Verdict.FAILED


def test_a_result_has_its_delta_where_the_baseline_has_a_score():
    found = result(0.57, 0.2)[0]
    assert (found.baseline, found.delta) == (0.2, 0.37)
    assert compared(result(0.5), [Result(benchmark="other", metric="accuracy", value=1)])[0].baseline is None


scores = st.floats(min_value=0, max_value=1, allow_nan=False)


@given(value=scores, bar=scores)
def test_min_and_max_agree_with_arithmetic(value, bar):
    low, high = judged([Gate(benchmark="qa", min=bar), Gate(benchmark="qa", max=bar)], result(value))
    assert low.passed or high.passed
    if abs(value - bar) > 1e-8:
        assert (low.passed, high.passed) == (value > bar, value < bar)


@given(value=scores, baseline=scores, bar=scores)
def test_regression_and_improvement_agree_with_arithmetic(value, baseline, bar):
    gates = [Gate(benchmark="qa", max_regression=bar), Gate(benchmark="qa", min_improvement=bar)]
    regression, improvement = judged(gates, result(value, baseline))
    if abs(abs(value - baseline) - bar) > 1e-8:
        assert regression.passed == (baseline - value < bar)
        assert improvement.passed == (value - baseline > bar)


@given(values=st.lists(scores, min_size=1, max_size=3))
def test_different_numbers_look_different_if_six_decimals_can_show_it(values):
    apart = {round(value, 6) for value in values}
    assert len(set(short(*values))) >= min(len(apart), len(set(values)))
