"""Every file of tests that docs/promises.md cites exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
PROMISES = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
NAMES = {path.name for path in (ROOT / "tests").rglob("*.py")}


def missing(line: str) -> Iterator[str]:
    """Yield what a line cites in backticks that does not exist: paths below tests/, and names of test modules without a folder."""
    for cited in re.findall(r"`([^`\s]+)`", line):
        if cited.startswith("tests/"):
            if not (ROOT / cited).exists():
                yield cited
        elif re.fullmatch(r"\w+\.py", cited) and cited not in NAMES:
            yield cited


@pytest.mark.parametrize("line", PROMISES, ids=lambda line: line.strip("| ")[:60])
def test_a_promise_cites_tests_that_exist(line: str) -> None:
    assert not [*missing(line)]


def test_a_file_that_does_not_exist_is_found() -> None:
    gone = "| a | `tests/verify/test_gone.py`, `test_gone.py`; `tests/gone`, `tests/verify/test_promises_page.py`, `make test` |"
    assert [*missing(gone)] == ["tests/verify/test_gone.py", "test_gone.py", "tests/gone"]
    assert len(PROMISES) > 80
