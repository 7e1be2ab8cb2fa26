"""The tiny model, and trained runs that several tests look at."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import tinymodel
from tests.s3 import s3, s3_server, store
from tests.unit.runtime.train.support import Run, make_run
from tunesmith_api.run import RunReport

__all__ = ["s3", "s3_server", "store"]

modules: dict[str, Any] = sys.modules
modules.setdefault("deepspeed", None)
"""Not installed for the whole session: transformers and accelerate, whichever is imported first, must agree on it."""


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors are faster on one thread, and processes share this machine's cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The untrained model's folder."""
    return tinymodel.make_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def lora(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, RunReport]:
    """A LoRA run, trained, with a validation split."""
    from tunesmith_runtime import train

    run = make_run(tmp_path_factory.mktemp("lora"), tiny, tinymodel.rows(256, seed=1), validation={"fraction": 0.1})
    return run, run.do(train.run)
