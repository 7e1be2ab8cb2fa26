"""`lora.init: eva`: the matrices A begin with the directions in which the inputs of their layers are largest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tinymodel
from tests.unit.runtime.train.support import Run, make_run, stop_and_resume
from tests.unit.runtime.train.tuners.test_targets import job
from tunesmith_api.failures import FailureClass
from tunesmith_runtime import export, train
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.models.files import load_model
from tunesmith_runtime.train.tuners.eva import BATCH_TOKENS, TOKENS, batches
from tunesmith_runtime.train.tuners.lora import LORA

RANK = 4
TEXTS = [[*range(3, 33)], [*range(100, 112)], [*range(60, 90, 2)], [*range(200, 240)]]
"""Rows of different lengths, so that batches are padded."""
LAYERS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")


def base(tiny: Path) -> Any:
    return load_model(tiny, dtype=torch.float32).eval()


def started(tiny: Path, rows: list[list[int]] = TEXTS, rank: int = RANK) -> Any:
    settings = job(lora={"rank": rank, "init": "eva"})
    model = LORA.apply(base(tiny), settings, None, ())
    LORA.initialize_from_rows(model, settings, rows)
    return model


def inputs_of(tiny: Path, layer: str) -> torch.Tensor:
    """The inputs (tokens, size) of a layer of the base, row by row."""
    model, found = base(tiny), []
    model.get_submodule(layer).register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].flatten(0, 1)))
    with torch.no_grad():
        for row in TEXTS:
            model(torch.tensor([row]))
    return torch.cat(found)


def inward(model: Any, layer: str) -> torch.Tensor:
    weight: torch.Tensor = model.get_base_model().get_submodule(layer).lora_A["default"].weight.detach()
    return weight


@pytest.mark.parametrize("name", LAYERS)
def test_the_rows_of_a_are_the_top_singular_vectors_of_the_inputs(name: str, tiny: Path) -> None:
    layer = f"model.layers.1.{name}"
    found = inward(started(tiny), layer)
    _, values, vectors = torch.linalg.svd(inputs_of(tiny, layer), full_matrices=False)
    assert torch.allclose(found @ found.T, torch.eye(RANK), atol=1e-4)
    assert values[0] > 1.01 * values[1]
    assert abs(float(found[0] @ vectors[0])) == pytest.approx(1, abs=1e-3)
    energy = (inputs_of(tiny, layer) @ found.T).square().sum()
    assert float(energy) == pytest.approx(float(values[:RANK].square().sum()), rel=1e-3)


def test_several_batches_find_the_directions_of_one(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = "model.layers.1.mlp.down_proj"
    monkeypatch.setattr("tunesmith_runtime.train.tuners.eva.BATCH_TOKENS", 40)
    found, inputs = inward(started(tiny), layer), inputs_of(tiny, layer)
    best = torch.linalg.svdvals(inputs)[:RANK].square().sum()
    assert float((inputs @ found.T).square().sum()) == pytest.approx(float(best), rel=1e-2)


def test_layers_with_the_same_inputs_begin_alike_and_the_model_as_its_base(tiny: Path) -> None:
    model = started(tiny)
    query, key = (inward(model, f"model.layers.0.self_attn.{name}") for name in ("q_proj", "k_proj"))
    assert query.equal(key)
    ids = torch.tensor([TEXTS[0]])
    with torch.no_grad():
        assert torch.allclose(model.eval()(ids).logits, base(tiny)(ids).logits, atol=1e-6)


def test_it_begins_the_same_each_time_and_leaves_random_states_alone(tiny: Path) -> None:
    first = started(tiny)
    state = torch.random.get_rng_state()
    LORA.initialize_from_rows(first, job(lora={"rank": RANK, "init": "eva"}), TEXTS)
    assert torch.random.get_rng_state().equal(state)
    again = started(tiny)
    weights = dict(again.named_parameters())
    assert all(weight.equal(weights[name]) for name, weight in first.named_parameters() if "lora_A" in name)


def test_fewer_tokens_than_directions_are_refused(tiny: Path) -> None:
    with pytest.raises(
        RunFailure, match=r"lora.rank 4 directions of the inputs of .*, and the first rows have 3 tokens"
    ) as failure:
        started(tiny, [[5, 6, 7]])
    assert failure.value.failure is FailureClass.BAD_SPEC


def test_only_the_first_rows_are_passed_through_the_model() -> None:
    found = list(batches([[1] * 300] * 1000))
    assert sum(len(row) for batch in found for row in batch) == TOKENS
    assert all(sum(map(len, batch)) <= BATCH_TOKENS + 300 for batch in found)
    assert [len(row) for row in next(batches([[1] * 5000]))] == [BATCH_TOKENS]
    assert list(batches([])) == []


def eva_run(folder: Path, tiny: Path, **spec: Any) -> Run:
    training = {"maxSteps": 6, "globalBatchSize": 8, "precision": "fp32", "learningRate": 1e-2}
    return make_run(folder, tiny, tinymodel.rows(48), training, lora={"rank": RANK, "init": "eva"}, **spec)


def test_a_stopped_run_resumes_exactly_and_is_merged(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = eva_run(tmp_path / "whole", tiny)
    expected = whole.do(train.run)
    resumed, report = stop_and_resume(eva_run(tmp_path / "stopped", tiny), tiny, tinymodel.rows(48), 3, monkeypatch)
    assert [entry["loss"] for entry in resumed.log_history()] == [entry["loss"] for entry in whole.log_history()]
    assert [each.digest for each in report.artifacts or []] == [each.digest for each in expected.artifacts or []]
    assert [artifact.name for artifact in resumed.do(export.run).artifacts or []] == ["adapter", "merged"]


def test_a_run_begins_with_the_directions_of_its_rows(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The course of a run passes its own rows."""
    seen: list[int] = []
    monkeypatch.setattr(
        "tunesmith_runtime.train.tuners.eva.begin_with_inputs", lambda _, rows: seen.append(len(list(rows)))
    )
    eva_run(tmp_path, tiny).do(train.run)
    assert seen == [48]
