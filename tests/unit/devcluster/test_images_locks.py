"""The locks that the images and the developers' environment are installed from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

LOCKS = Path(__file__).resolve().parents[3] / "locks"
NAMES = ("operator", "runtime", "lmdeploy", "dev")
# name==version, an optional condition, and the hashes that continue on the next lines
REQUIREMENT = re.compile(r"^([a-z0-9][a-z0-9.-]*)==([^ ;\\]+)(?: ; ([^\\]+?))? \\$")


def pins(name: str) -> set[tuple[str, str]]:
    lines = (LOCKS / f"{name}.txt").read_text().splitlines()
    return {(match[1], match[2]) for line in lines if (match := REQUIREMENT.match(line))}


@pytest.mark.parametrize("name", NAMES)
def test_every_line_of_a_lock_is_a_pin_a_hash_or_a_comment(name: str) -> None:
    for line in (LOCKS / f"{name}.txt").read_text().splitlines():
        assert line.startswith("#") or REQUIREMENT.match(line) or re.match(r"^    (--hash=sha256:|# )", line), line


@pytest.mark.parametrize("name", NAMES)
def test_a_lock_names_no_host(name: str) -> None:
    assert "://" not in (LOCKS / f"{name}.txt").read_text()


@pytest.mark.parametrize("name", ["operator", "runtime"])
def test_the_tests_use_the_versions_of_the_images(name: str) -> None:
    assert pins(name) <= pins("dev")


def test_lmdeploy_replaces_nothing_of_the_runtime() -> None:
    assert pins("runtime") <= pins("lmdeploy")
    assert "lmdeploy" in dict(pins("lmdeploy"))


def test_the_operator_needs_no_torch() -> None:
    assert not {"torch", "transformers", "numpy"} & set(dict(pins("operator")))
