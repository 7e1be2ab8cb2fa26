"""A tiny model with two adapters, and servers in processes of their own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Server, run_spec
from tests.tinymodel import make_model
from tunesmith_runtime.tasks import LANGUAGE, class_for

ADAPTERS = ("fr", "de")

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the verb does, before torch is loaded: see there


def make_adapter(base: Path, folder: Path, seed: int, **settings: Any) -> Path:
    """A LoRA adapter with random weights, so that it answers differently from its base."""
    import torch
    import transformers
    from peft import LoraConfig, get_peft_model

    loader = getattr(transformers, class_for(LANGUAGE, json.loads((base / "config.json").read_text())))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LoraConfig(
            r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM", **settings
        )
        get_peft_model(loader.from_pretrained(base), config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work directory as fetch leaves it for an InferenceService: a model and two adapters."""
    folder = tmp_path_factory.mktemp("work")
    model = make_model(folder / "model")
    for seed, name in enumerate(ADAPTERS):
        make_adapter(model, folder / "adapters" / name, seed)
    return folder


@pytest.fixture(scope="module")
def model(work: Path) -> Any:
    """The model with both adapters, loaded for generation."""
    from tunesmith_runtime.serve.generation.model import load  # imports torch

    return load(work / "model", {name: work / "adapters" / name for name in ADAPTERS}, None, trust_remote_code=False)


@pytest.fixture(scope="session")
def spec(work: Path) -> Path:
    """The spec of a service named `demo` with both adapters."""
    adapters = [{"name": name, "model": {"uri": f"s3://models/{name}"}} for name in ADAPTERS]
    file = work / "service.json"
    file.write_text(json.dumps(run_spec("InferenceService", "demo", adapters=adapters)))
    return file


@pytest.fixture
def start(work: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers, and stops them after the test."""
    started: list[Server] = []

    def begin(spec: Path, work: Path = work, **environment: str) -> Server:
        started.append(Server(spec, work, environment))
        return started[-1]

    yield begin
    for server in started:
        server.stop()
