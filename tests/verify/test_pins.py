"""What is pinned in several places is pinned to the same version."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_images_and_make_install_with_the_same_uv() -> None:
    pins = {
        name: re.findall(pattern, (ROOT / name).read_text())
        for name, pattern in {
            "Makefile": r"\buv==(\S+)",
            "operator/Containerfile": r"(?m)^ARG UV=\S+:(\S+)$",
            "runtime/Containerfile": r"(?m)^ARG UV=\S+:(\S+)$",
        }.items()
    }
    assert all(len(found) == 1 for found in pins.values()), pins
    assert len({found[0] for found in pins.values()}) == 1, pins
