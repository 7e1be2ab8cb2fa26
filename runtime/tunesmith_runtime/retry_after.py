"""Reads the header Retry-After (RFC 9110, 10.2.3), by which a server asks for time."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def retry_after(header: str) -> float | None:
    """Return the seconds to wait by a header Retry-After, which has seconds or a date; None without either."""
    if re.fullmatch("[0-9]{1,9}", header.strip()):
        return float(header)
    try:
        date = parsedate_to_datetime(header)
    except ValueError:
        return None
    moment = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
