from __future__ import annotations

from tunesmith_operator.client import RESOURCES


def test_paths_follow_the_kubernetes_api() -> None:
    assert RESOURCES["Pod"].path("team", "a") == "/api/v1/namespaces/team/pods/a"
    assert RESOURCES["Job"].path(None) == "/apis/batch/v1/jobs"
    path = RESOURCES["EvalJob"].path("team", "a", "status")
    assert path == "/apis/tunesmith.dev/v1alpha1/namespaces/team/evaljobs/a/status"
