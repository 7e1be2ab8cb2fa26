"""A container's result: its RunReport in the termination message, and its log."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Collection
from pathlib import Path

from tunesmith_api.evaljob import Result
from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob_status import IgnoredKey, Rows
from tunesmith_api.run import LOG_TAIL_CHARACTERS, TERMINATION_MESSAGE_BYTES, FailureReport, Outcome, RunReport, Verb
from tunesmith_runtime.credentials import redacted
from tunesmith_runtime.data.row_counts import OTHER_KEYS
from tunesmith_runtime.errors import RunFailure

TERMINATION_LOG_VARIABLE = "TUNESMITH_TERMINATION_LOG"
TERMINATION_LOG = Path("/dev/termination-log")
LOGGED_REPORT_BYTES = 2000
"""The kubelet uses the last 2,048 bytes of the log if the termination message is empty."""


class RecentLines(logging.Handler):
    """Keeps the last lines of the log: for `lastFailure.logTail`, and to search them for the cause."""

    def __init__(self, lines: int = 300) -> None:
        super().__init__()
        self._lines: deque[str] = deque(maxlen=lines)

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))

    def tail(self, characters: int = LOG_TAIL_CHARACTERS) -> str:
        """Return the last `characters` of the log."""
        return "\n".join(self._lines)[-characters:]


class PlainFormatter(logging.Formatter):
    """Formats `15:04:05 message`, with the level if it is not INFO, and redacts secrets."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        line = redacted(super().format(record))
        return line if record.levelno == logging.INFO else line.replace(" ", f" {record.levelname} ", 1)


def start_logging() -> RecentLines:
    """Log to standard output, libraries from WARNING on; return the handler that keeps the last lines."""
    recent = RecentLines()
    stream = logging.StreamHandler(sys.stdout)
    for handler in (stream, recent):
        handler.setFormatter(PlainFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[stream, recent], force=True)
    logging.getLogger("tunesmith_runtime").setLevel(logging.INFO)
    threading.excepthook = _log_end_of_thread
    return recent


def _log_end_of_thread(end: threading.ExceptHookArgs) -> None:
    """Log the traceback of a thread: Python would print it without redacting secrets."""
    if end.exc_value is not None:
        logging.getLogger(__name__).error("a thread ended", exc_info=end.exc_value)


def failed(verb: Verb, failure: RunFailure, log_tail: str | None = None) -> RunReport:
    """Return the report of a failure."""
    reason = FailureReport(class_=failure.failure, message=failure.message, hint=failure.hint, log_tail=log_tail)
    outcome = Outcome.PREEMPTED if failure.failure == "Preempted" else Outcome.FAILED
    return RunReport(verb=verb, outcome=outcome, failure=reason)


def _without_secrets(report: RunReport) -> RunReport:
    if report.failure is None:
        return report
    texts = {
        name: redacted(text) for name in ("message", "hint", "log_tail") if (text := getattr(report.failure, name))
    }
    return report.model_copy(update={"failure": report.failure.model_copy(update=texts)})


def _encode(report: RunReport) -> bytes:
    return json.dumps(report.to_dict(), separators=(",", ":"), ensure_ascii=False).encode()


def fitted(report: RunReport, gated: Collection[tuple[str, str]], limit: int = TERMINATION_MESSAGE_BYTES) -> RunReport:
    """Return `report` with as many results as fit into `limit` bytes.

    Results that gates need (`gated`: benchmark and metric) come first, then the first metric of each benchmark, then the
    rest. The number of dropped results is logged; run.json has all.

    Raises RunFailure (EvaluationFailed) if a gate's result does not fit.
    """
    results = report.results or []
    if len(_encode(report)) <= limit:
        return report
    primary = {result.benchmark: id(result) for result in reversed(results)}

    def rank(result: Result) -> int:
        return 0 if (result.benchmark, result.metric) in gated else 1 if primary[result.benchmark] == id(result) else 2

    ordered = sorted(results, key=rank)
    kept = len(ordered)
    while kept and len(_encode(report.model_copy(update={"results": ordered[:kept]}))) > limit:
        kept -= 1
    if kept < len(ordered) and rank(ordered[kept]) == 0:
        first = ordered[kept]
        raise RunFailure(
            FailureClass.EVALUATION_FAILED,
            f"the score {first.benchmark} {first.metric}, which a gate asks for, does not fit into the {limit} bytes of a "
            f"report; {kept} scores do. All {len(ordered)} are in {report.run_uri}/run.json",
            "put fewer gated benchmarks into one EvalJob",
        )
    logging.getLogger(__name__).warning(
        "%d of %d scores do not fit into the report and are in %s/run.json only",
        len(ordered) - kept,
        len(ordered),
        report.run_uri,
    )
    return report.model_copy(update={"results": ordered[:kept]})


def with_fewer_keys(rows: Rows) -> Rows:
    """Return `rows` with its last ignored key counted under OTHER_KEYS; unchanged if no other is left."""
    counts = {each.key: each.count for each in rows.ignored_keys or ()}
    others = counts.pop(OTHER_KEYS, 0)
    if not counts:
        return rows
    others += counts.popitem()[1]
    keys = [IgnoredKey(key=key, count=count) for key, count in {**counts, OTHER_KEYS: others}.items()]
    return rows.model_copy(update={"ignored_keys": keys})


def with_fewer_datasets(rows: Rows) -> Rows:
    """Return `rows` without its last data set, which is counted; unchanged if none is left."""
    if not rows.datasets:
        return rows
    return rows.model_copy(
        update={"datasets": rows.datasets[:-1] or None, "more_datasets": (rows.more_datasets or 0) + 1}
    )


def encode(report: RunReport, limit: int = TERMINATION_MESSAGE_BYTES) -> bytes:
    """Return `report` as JSON of at most `limit` bytes.

    It is cut in this order: log tail, message, hint, names of ignored keys, which are counted together then, last data sets,
    which are counted, details of the estimate, model, results, artifacts.
    """
    report = _without_secrets(report)
    for name, keep_end in (("log_tail", True), ("message", False), ("hint", False)):
        while (
            (excess := len(_encode(report)) - limit) > 0 and report.failure and (text := getattr(report.failure, name))
        ):
            kept = max(0, len(text) - max(excess // 4, 16))  # a character has up to 4 bytes, or 6 if JSON escapes it
            cut = (text[-kept:] if keep_end else text[:kept]) if kept else ("" if name == "message" else None)
            report = report.model_copy(update={"failure": report.failure.model_copy(update={name: cut})})
    for shorten in (with_fewer_keys, with_fewer_datasets):
        while len(_encode(report)) > limit and report.rows and (shorter := shorten(report.rows)) != report.rows:
            report = report.model_copy(update={"rows": shorter})
    if len(_encode(report)) > limit and report.estimate:
        report = report.model_copy(
            update={"estimate": report.estimate.model_copy(update={"changes": None, "memory": None})}
        )
    if len(_encode(report)) > limit:
        report = report.model_copy(update={"model_uri": None, "model_digest": None})
    for name in ("results", "artifacts"):
        while len(_encode(report)) > limit and (items := getattr(report, name)):
            report = report.model_copy(update={name: items[:-1] or None})
    return _encode(report)


def write_report(report: RunReport) -> None:
    """Write `report` as the termination message, and as the last line of the log."""
    path = Path(os.environ.get(TERMINATION_LOG_VARIABLE) or TERMINATION_LOG)
    if TERMINATION_LOG_VARIABLE in os.environ or path.exists():
        try:
            path.write_bytes(encode(report))
        except OSError as error:
            logging.getLogger(__name__).warning("the termination message %s cannot be written: %s", path, error)
    sys.stdout.write(encode(report, LOGGED_REPORT_BYTES).decode() + "\n")
    sys.stdout.flush()
