"""docs/operations.md says what to do in every phase and about every failure that there is."""

from __future__ import annotations

from pathlib import Path

from tunesmith_api.failures import FailureClass
from tunesmith_operator.plan.phases import Phase

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
GOOD = {Phase.SUCCEEDED, Phase.READY}
"""Phases in which there is nothing to do."""


def test_every_phase_has_one_row() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    told = [phase for phase in Phase for row in rows if row.startswith(f"| `{phase}` |")]
    assert sorted(told) == sorted(set(Phase) - GOOD)


def test_every_failure_class_has_somebody_whose_matter_it_is() -> None:
    left = {one for one in FailureClass if f"`{one}`" not in PAGE and not one.startswith("Storage")}
    assert not left
