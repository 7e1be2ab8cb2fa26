"""An autoscaler that tells its figures costs no look; one that was edited or deleted, or is in trouble, does."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tunesmith_operator.news import News

AUTOSCALER: dict[str, Any] = {
    "metadata": {"namespace": "team", "name": "support", "uid": "u1", "resourceVersion": "1", "labels": {"a": "b"}},
    "spec": {"maxReplicas": 4},
    "status": {
        "currentMetrics": [{"resource": {"current": {"averageUtilization": 50}}}],
        "conditions": [{"type": "ScalingActive", "status": "True", "reason": "ValidMetricFound", "message": "50 %"}],
    },
}
KIND = "HorizontalPodAutoscaler"


def edited(**changes: Any) -> dict[str, Any]:
    thing = copy.deepcopy(AUTOSCALER)
    for path, value in changes.items():
        where, _, name = path.partition("_")
        thing[where][name] = value
    return thing


def test_figures_and_words_are_no_news() -> None:
    news = News()
    assert news.is_news("ADDED", KIND, AUTOSCALER)
    louder = edited(metadata_resourceVersion="2", status_currentMetrics=[])
    louder["status"]["conditions"][0]["message"] = "70 %"
    assert not news.is_news("MODIFIED", KIND, louder)
    assert not news.is_news(None, KIND, louder)


@pytest.mark.parametrize(
    "change",
    [
        {"spec_maxReplicas": 9},
        {"metadata_uid": "u2"},
        {"metadata_labels": {}},
        {"status_conditions": [{"type": "ScalingActive", "status": "False", "reason": "FailedGetResourceMetric"}]},
    ],
    ids=str,
)
def test_what_a_plan_goes_by_is_news(change: dict[str, Any]) -> None:
    news = News()
    news.is_news("ADDED", KIND, AUTOSCALER)
    assert news.is_news("MODIFIED", KIND, edited(**change))


def test_a_deletion_is_news_and_nothing_is_kept_of_it() -> None:
    news = News()
    news.is_news("ADDED", KIND, AUTOSCALER)
    assert news.is_news("DELETED", KIND, AUTOSCALER)
    assert news.is_news("ADDED", KIND, AUTOSCALER)


def test_every_event_of_a_pod_is_news() -> None:
    news = News()
    assert news.is_news("MODIFIED", "Pod", AUTOSCALER)
    assert news.is_news("MODIFIED", "Pod", AUTOSCALER)
