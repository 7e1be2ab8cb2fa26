"""The tokenizer of the tiny model, and an empty work directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import tinymodel
from tunesmith_runtime.workdir import Work


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tinymodel.make_tokenizer()


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path)
