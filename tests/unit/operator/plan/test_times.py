"""Times in the format of the API server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_operator.plan.times import format_time, parse_time


@given(st.datetimes(datetime(1970, 1, 1), datetime(9998, 1, 1), timezones=st.just(UTC)))
def test_a_formatted_time_is_parsed_to_the_same_second(moment: datetime) -> None:
    parsed = parse_time(format_time(moment))
    assert parsed is not None
    assert timedelta(0) <= moment - parsed < timedelta(seconds=1)


@pytest.mark.parametrize("text", [None, 5, "", "soon", "2026-13-01T00:00:00Z"])
def test_text_that_is_no_time_is_none(text: object) -> None:
    assert parse_time(text) is None


def test_a_time_without_zone_is_utc() -> None:
    assert parse_time("2026-01-02T03:04:05") == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_an_offset_and_microseconds_are_parsed() -> None:
    moment = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
    assert parse_time("2026-11-22T13:00:00.123456+01:00") == moment
