from __future__ import annotations

import json
import logging

import pytest

from tunesmith_operator.log import JsonFormatter, about, soften
from tunesmith_operator.resources import ResourceKey


@pytest.mark.parametrize(
    ("message", "level"), [("attempt #1/12 failed; will retry: GET", "WARNING"), ("attempt failed", "ERROR")]
)
def test_kopf_errors_that_are_retried_are_logged_as_warnings(message: str, level: str) -> None:
    record = logging.LogRecord("kopf", logging.ERROR, __file__, 1, message, (), None)
    assert soften(record)
    assert record.levelname == level


def test_a_log_line_is_json_with_its_resource() -> None:
    record = logging.LogRecord("x", logging.WARNING, __file__, 1, "a\n%s", ("b",), None)
    with about(ResourceKey("EvalJob", "team", "eval")):
        line = JsonFormatter().format(record)
    assert "\n" not in line
    entry = json.loads(line)
    assert (entry["level"], entry["message"]) == ("warning", "a\nb")
    assert (entry["kind"], entry["namespace"], entry["name"]) == ("EvalJob", "team", "eval")
    assert "kind" not in json.loads(JsonFormatter().format(record))
