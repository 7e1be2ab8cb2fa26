"""The threat model names existing tests in every line, and has every list of the policy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tunesmith_operator.plan.config import PodPolicy

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
THREATS = [line for line in PAGE.splitlines() if re.match(r"\| \d+ \| ", line)]


def test_threats_are_numbered_without_gaps() -> None:
    assert [int(line.split(" | ")[0].strip("| ")) for line in THREATS] == [*range(1, len(THREATS) + 1)]
    assert len(THREATS) > 20


@pytest.mark.parametrize("line", THREATS, ids=lambda line: line.split(" | ")[1][:60])
def test_a_threat_names_existing_tests(line: str) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", line)
    assert named
    for path, name in named:
        assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), name


def test_the_page_has_every_list_of_the_policy_with_its_default() -> None:
    for name, default in PodPolicy().model_dump(by_alias=True).items():
        [row] = [line for line in PAGE.splitlines() if line.startswith(f"| `podPolicy.{name}` |")]
        shown = [str(default).lower()] if isinstance(default, bool) else default
        assert all(f"`{name}`" in row for name in shown)
