"""A tiny model that reads images, with its processor."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import tinyvision


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vision")
    return tinyvision.add_processor(tinyvision.make_model(folder, "qwen2_5_vl"), "qwen2_5_vl")
