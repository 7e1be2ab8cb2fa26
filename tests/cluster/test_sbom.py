"""`make sbom` on the images that the pods of this tier run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from devcluster.paths import cache_paths
from tools import sbom


@pytest.mark.parametrize("name", ["operator", "runtime"])
def test_both_images_match_their_locks_and_are_listed(tmp_path: Path, name: str) -> None:
    assert sbom.main(cache_paths(), tmp_path) == 0
    document = json.loads((tmp_path / f"{name}.cdx.json").read_text())
    urls = [component["purl"] for component in document["components"]]
    expected = {"operator": "pkg:pypi/kopf@", "runtime": "pkg:pypi/torch@"}
    assert any(url.startswith(expected[name]) for url in urls)
    assert any(url.startswith("pkg:deb/") and "python3" in url for url in urls)
