"""Digests of files as the hubs list them."""

from __future__ import annotations

from pathlib import Path

from tunesmith_runtime.fetch.hub_types import digests_of


def test_the_digests_of_a_file_are_those_of_sha256sum_and_git(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"hello\n")
    assert digests_of(file) == {
        "sha256": "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
        "git": "ce013625030ba8dba906f756967f9e9ca394464a",
    }
