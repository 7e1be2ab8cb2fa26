"""The check of the tests with real pods that no attempt loses a checkpoint."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.lost_work import Ledger

Status = dict[str, Any]


def status(attempt: int, second: int, step: int, saved: int = 0, resumed: int | None = None) -> Status:
    """A status with a progress report of that second."""
    report: Status = {
        "attempt": attempt,
        "progress": {"stage": "train", "step": step, "updated": f"2026-01-01T00:00:{second:02}Z"},
    }
    report |= {"lastCheckpoint": {"step": saved}} if saved else {}
    return report | ({"resumedFromStep": resumed} if resumed is not None else {})


def ledger_of(*statuses: Status) -> Ledger:
    """A ledger that has observed these statuses."""
    ledger = Ledger()
    for each in statuses:
        ledger.observe(each)
    return ledger


KILLED = (status(1, 1, 3), status(1, 9, 130, saved=125))
"""An attempt that is killed after its first checkpoint."""
REPLACED = status(2, 9, 130, saved=125)
"""The next attempt, before its first report."""


@pytest.mark.parametrize("resumed", [125, 150])
def test_an_attempt_may_resume_from_the_last_checkpoint_or_a_later_one(resumed: int) -> None:
    ledger = ledger_of(*KILLED, REPLACED, status(2, 30, resumed + 1, saved=resumed, resumed=resumed))
    assert ledger.resumed_from == {2: f"{resumed} where 125 was saved"}
    assert ledger.saved == resumed


@pytest.mark.parametrize(
    "report",
    [
        pytest.param(status(2, 30, 1, saved=125), id="from scratch"),
        pytest.param(status(2, 30, 200, saved=125), id="from scratch, reported late"),
        pytest.param(status(2, 30, 101, saved=100, resumed=100), id="from an older checkpoint"),
    ],
)
def test_an_attempt_that_resumes_before_the_saved_step_fails_the_test(report: Status) -> None:
    with pytest.raises(AssertionError, match="step 125 was saved before"):
        ledger_of(*KILLED, REPLACED, report)


def test_a_start_from_scratch_after_a_resumed_attempt_is_detected_by_its_step() -> None:
    resumed = (status(2, 30, 126, saved=125, resumed=125), status(3, 30, 126, saved=125, resumed=125))
    with pytest.raises(AssertionError, match="attempt 3 resumed from step 125 and was at 1;"):
        ledger_of(*KILLED, REPLACED, *resumed, status(3, 50, 1, saved=125, resumed=125))


def test_an_attempt_without_a_reported_step_is_not_checked() -> None:
    fetching = {**REPLACED, "progress": {"stage": "fetch", "step": 0, "updated": "2026-01-01T00:00:30Z"}}
    assert ledger_of(*KILLED, REPLACED, REPLACED, fetching).resumed_from == {}


def test_checkpoints_of_an_attempt_do_not_bind_the_attempt_itself() -> None:
    later = (status(2, 30, 126, saved=125, resumed=125), status(2, 40, 210, saved=200, resumed=125))
    assert ledger_of(*KILLED, REPLACED, *later).resumed_from == {2: "125 where 125 was saved"}


def test_checkpoints_of_an_attempt_bind_the_next_attempt() -> None:
    later = (status(2, 40, 210, saved=200, resumed=125), status(3, 40, 210, saved=200, resumed=125))
    with pytest.raises(AssertionError, match=r"attempt 3 .* step 200 was saved before"):
        ledger_of(*KILLED, REPLACED, *later, status(3, 60, 126, saved=200, resumed=125))


def test_an_attempt_without_a_status_is_skipped() -> None:
    assert ledger_of(
        *KILLED, status(3, 9, 130, saved=125), status(3, 60, 126, saved=125, resumed=125)
    ).resumed_from == {3: "125 where 125 was saved"}
