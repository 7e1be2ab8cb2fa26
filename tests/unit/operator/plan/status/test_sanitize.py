"""What pods say cannot spoil what people read."""

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
    """Whether a terminal only shows it."""
    return not any(unicodedata.category(one) in ("Cc", "Cs") and one not in "\n\t" for one in text)


def test_a_log_moves_no_cursor_and_turns_no_line_around() -> None:
    cluster = Cluster(fine_tune_job(retries=0))
    cluster.settle()
    cluster.fail("support-tune-1", {"train": ended(1, HOSTILE)})
    cluster.settle()
    failure = cluster.status["lastFailure"]
    assert "owned" in failure["logTail"]
    said = [*texts(cluster.status), *(event.message for event in cluster.events)]
    assert all(is_shown(text) and "\u202e" not in text for text in said)


def test_what_a_pod_says_of_a_secret_is_in_neither_status_nor_events() -> None:
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
def test_whatever_a_pod_says_is_text_that_the_api_server_takes_as_it_is(text: str) -> None:
    """What it would change on the way would be written again and again."""
    fit = sanitize("FineTuneJob", {"phase": "Running", "message": text, "waitingFor": text})
    assert fit["message"].encode().decode() == fit["message"]
    assert is_shown(fit["message"])
    assert sanitize("FineTuneJob", fit) == fit


@given(st.text(st.characters(exclude_categories=["C", "Z"]), max_size=100))
def test_what_is_text_is_left_alone(text: str) -> None:
    assert sanitize("FineTuneJob", {"message": text})["message"] == text
