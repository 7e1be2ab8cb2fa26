"""The header Retry-After: seconds, a date, or nothing that can be read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from tunesmith_runtime.retry_after import retry_after


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        (" 0 ", 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("9" * 400, None),
    ],
)
def test_seconds_are_read_and_a_past_date_is_now(header: str, seconds: float | None) -> None:
    assert retry_after(header) == seconds


def test_a_date_to_come_is_the_time_until_then() -> None:
    found = retry_after(format_datetime(datetime.now(UTC) + timedelta(minutes=5), usegmt=True))
    assert found is not None
    assert 295 < found <= 300
