from __future__ import annotations

import tomllib
from pathlib import Path

from tunesmith_api.release import VERSION

ROOT = Path(__file__).resolve().parents[3]


def test_the_version_equals_that_of_the_distribution() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION
