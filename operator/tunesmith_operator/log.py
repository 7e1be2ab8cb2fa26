"""Logging: one JSON object per line on stderr, with the resource that is being reconciled."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

from tunesmith_api.redaction import redact
from tunesmith_operator.resources import ResourceKey

_subject: ContextVar[ResourceKey | None] = ContextVar("subject", default=None)


@contextmanager
def about(key: ResourceKey) -> Iterator[None]:
    """Add `key` to the log lines of the block."""
    token = _subject.set(key)
    try:
        yield
    finally:
        _subject.reset(token)


class JsonFormatter(logging.Formatter):
    """time, level, logger, message; kind, namespace and name of the resource; the traceback of an exception."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        subject = _subject.get()
        if subject is not None:
            entry |= subject._asdict()
        if record.exc_info:
            entry["exception"] = redact(self.formatException(record.exc_info))
        return json.dumps(entry, ensure_ascii=False)


def soften(record: logging.LogRecord) -> bool:
    """Log the errors that kopf retries as warnings: an error calls for an intervention."""
    if record.levelno == logging.ERROR and "will retry" in record.getMessage():
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True


def configure(level: int = logging.INFO) -> None:
    """Install the format. kopf logs every event that it handles, so only its warnings pass."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(soften)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for chatty in ("kopf", "aiohttp.access"):
        logging.getLogger(chatty).setLevel(max(level, logging.WARNING))
