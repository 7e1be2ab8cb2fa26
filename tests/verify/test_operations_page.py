"""docs/operations.md has advice for every phase and every failure class."""

from __future__ import annotations

from pathlib import Path

from tunesmith_api.failures import FailureClass
from tunesmith_operator.plan.phases import Phase

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
GOOD = {Phase.SUCCEEDED, Phase.READY}
"""Phases that need no action."""


def test_every_phase_has_one_row() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    documented = [phase for phase in Phase for row in rows if row.startswith(f"| `{phase}` |")]
    assert sorted(documented) == sorted(set(Phase) - GOOD)


def test_every_failure_class_has_somebody_responsible() -> None:
    left = {each for each in FailureClass if f"`{each}`" not in PAGE and not each.startswith(("Storage", "Hub"))}
    assert not left
