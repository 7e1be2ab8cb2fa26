from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith_runtime.serve.generation import memory
from tunesmith_runtime.serve.generation.batch import Batch
from tunesmith_runtime.serve.generation.memory import capacity
from tunesmith_runtime.serve.generation.model import LoadedModel, load


def loaded(work: Path) -> LoadedModel:
    return load(work / "model", {}, None, trust_remote_code=False)


def limited(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str) -> None:
    """Let the container have a memory limit."""
    file = tmp_path / "memory.max"
    file.write_text(f"{limit}\n")
    monkeypatch.setattr(memory, "CGROUP_LIMIT", file)


def test_a_token_is_counted_with_its_bytes_in_the_cache(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(work)
    batch = Batch(model.forward)
    batch.begin([[5, 6, 7]], [None])
    kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in batch._cache.layers)
    weights = sum(parameter.nbytes for parameter in model.forward._model.parameters())
    limited(monkeypatch, tmp_path, str(weights + 100 * kept))
    assert capacity(model.forward._model) == 300


def test_the_context_is_limited_to_what_memory_can_hold(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = sum(parameter.nbytes for parameter in loaded(work).forward._model.parameters())
    limited(monkeypatch, tmp_path, str(weights + 768 * 200))
    assert loaded(work).max_length == 200


@pytest.mark.parametrize("limit", ["max", str(1 << 40)])
def test_without_a_memory_limit_the_context_is_the_models(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    limited(monkeypatch, tmp_path, limit)
    assert loaded(work).max_length == 512
