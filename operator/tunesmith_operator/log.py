"""One JSON object a line on stderr, with the resource that the line is about."""

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
    """All that is logged within is about `key`."""
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
    """kopf calls an error what it will try again: a warning, as an error asks for somebody to look at it."""
    if record.levelno == logging.ERROR and "will retry" in record.getMessage():
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True


def configure(level: int = logging.INFO) -> None:
    """Send all logging there. kopf tells of every event it handles; only its warnings are of use."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(soften)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for chatty in ("kopf", "aiohttp.access"):
        logging.getLogger(chatty).setLevel(max(level, logging.WARNING))
