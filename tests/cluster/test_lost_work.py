"""The ledger by which the tests with real pods judge that no attempt loses what was saved."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.lost_work import Ledger

Status = dict[str, Any]


def status(attempt: int, second: int, step: int, saved: int = 0, resumed: int | None = None) -> Status:
    """A status with a word of that second from the training."""
    told: Status = {
        "attempt": attempt,
        "progress": {"stage": "train", "step": step, "updated": f"2026-01-01T00:00:{second:02}Z"},
    }
    told |= {"lastCheckpoint": {"step": saved}} if saved else {}
    return told | ({"resumedFromStep": resumed} if resumed is not None else {})


def judged(*statuses: Status) -> Ledger:
    """A ledger that has heard them."""
    ledger = Ledger()
    for each in statuses:
        ledger.look(each)
    return ledger


KILLED = (status(1, 1, 3), status(1, 9, 130, saved=125))
"""An attempt that is killed when it has saved something."""
REPLACED = status(2, 9, 130, saved=125)
"""The next one, of which nothing is heard yet."""


@pytest.mark.parametrize("resumed", [125, 150])
def test_an_attempt_that_goes_on_from_the_last_checkpoint_or_a_later_one_is_right(resumed: int) -> None:
    ledger = judged(*KILLED, REPLACED, status(2, 30, resumed + 1, saved=resumed, resumed=resumed))
    assert ledger.went_on == {2: f"{resumed} where 125 was saved"}
    assert ledger.saved == resumed


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(status(2, 30, 1, saved=125), id="from scratch"),
        pytest.param(status(2, 30, 200, saved=125), id="from scratch, heard late"),
        pytest.param(status(2, 30, 101, saved=100, resumed=100), id="from an older checkpoint"),
    ],
)
def test_an_attempt_that_begins_with_less_than_was_saved_is_wrong(told: Status) -> None:
    with pytest.raises(AssertionError, match="125 was saved before it"):
        judged(*KILLED, REPLACED, told)


def test_one_that_begins_from_scratch_after_one_that_had_resumed_is_given_away_by_its_step() -> None:
    resumed = (status(2, 30, 126, saved=125, resumed=125), status(3, 30, 126, saved=125, resumed=125))
    with pytest.raises(AssertionError, match="attempt 3 resumed from step 125 and was at 1;"):
        judged(*KILLED, REPLACED, *resumed, status(3, 50, 1, saved=125, resumed=125))


def test_an_attempt_that_has_not_told_of_a_step_is_not_judged() -> None:
    fetching = {**REPLACED, "progress": {"stage": "fetch", "step": 0, "updated": "2026-01-01T00:00:30Z"}}
    assert judged(*KILLED, REPLACED, REPLACED, fetching).went_on == {}


def test_an_attempt_owes_nothing_of_what_it_has_saved_itself() -> None:
    later = (status(2, 30, 126, saved=125, resumed=125), status(2, 40, 210, saved=200, resumed=125))
    assert judged(*KILLED, REPLACED, *later).went_on == {2: "125 where 125 was saved"}


def test_the_next_attempt_owes_what_status_told_last_of_the_one_before() -> None:
    later = (status(2, 40, 210, saved=200, resumed=125), status(3, 40, 210, saved=200, resumed=125))
    with pytest.raises(AssertionError, match=r"attempt 3 .* 200 was saved before it"):
        judged(*KILLED, REPLACED, *later, status(3, 60, 126, saved=200, resumed=125))


def test_an_attempt_that_nobody_saw_is_skipped() -> None:
    assert judged(*KILLED, status(3, 9, 130, saved=125), status(3, 60, 126, saved=125, resumed=125)).went_on == {
        3: "125 where 125 was saved"
    }
