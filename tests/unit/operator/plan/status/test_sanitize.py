"""Text from pods can neither break a status nor mislead its readers."""

from __future__ import annotations

import unicodedata
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.operator.plan.world import Cluster, ended, fine_tune_job
from tunesmith_operator.plan.status.sanitize import sanitize

HOSTILE = "\x1b[2J\x1b]0;owned\x07loss is \u202e0.0\r\x00 and 'kubectl delete ns'"


def texts(thing: Any) -> list[str]:
    """All texts in a JSON value."""
    if isinstance(thing, dict):
        return [text for value in thing.values() for text in texts(value)]
    if isinstance(thing, list):
        return [text for value in thing for text in texts(value)]
    return [thing] if isinstance(thing, str) else []


def is_shown(text: str) -> bool:
    """Whether a terminal shows all of its characters."""
    return not any(unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t" for char in text)


def test_a_log_cannot_move_the_cursor_or_reverse_a_line() -> None:
    cluster = Cluster(fine_tune_job(retries=0))
    cluster.settle()
    cluster.fail("support-tune-1", {"train": ended(1, HOSTILE)})
    cluster.settle()
    failure = cluster.status["lastFailure"]
    assert "owned" in failure["logTail"]
    shown = [*texts(cluster.status), *(event.message for event in cluster.events)]
    assert all(is_shown(text) and "\u202e" not in text for text in shown)


def test_a_secret_in_a_log_is_in_neither_status_nor_events() -> None:
    key, signature = "AKIAIOSFODNN7EXAMPLE", "fe5f80f77d5fa3beca038a248ff027d0"
    line = (
        f"Invalid header value b'AWS4-HMAC-SHA256 Credential={key}/s3, Signature={signature}' at s3://me:{signature}@b"
    )
    cluster = Cluster(fine_tune_job(retries=0))
    cluster.settle()
    cluster.fail("support-tune-1", {"train": ended(1, line)})
    cluster.settle()
    everything = [*texts(cluster.status), *(event.message for event in cluster.events)]
    assert "Signature=***' at s3://***@b" in cluster.status["lastFailure"]["logTail"]
    assert not any(secret in text for text in everything for secret in (key, signature))


@given(st.text(st.characters(), max_size=300))
def test_sanitized_text_is_stored_unchanged_by_the_api_server(text: str) -> None:
    """Otherwise each reconcile would write it again."""
    fit = sanitize("FineTuneJob", {"phase": "Running", "message": text, "waitingFor": text})
    assert fit["message"].encode().decode() == fit["message"]
    assert is_shown(fit["message"])
    assert sanitize("FineTuneJob", fit) == fit


@given(st.text(st.characters(exclude_categories=["C", "Z"]), max_size=100))
def test_printable_text_is_not_changed(text: str) -> None:
    assert sanitize("FineTuneJob", {"message": text})["message"] == text
