"""`lora.from`: a training that goes on with an adapter begins where that has ended, and is compared with it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests import tinymodel
from tests.unit.runtime.train.methods.preferences import preferences
from tests.unit.runtime.train.support import Run, again, make_run, stop_after, stop_and_resume
from tunesmith_api.run import Outcome
from tunesmith_runtime import export, train
from tunesmith_runtime.progress_push import ProgressPusher

ROWS = tinymodel.rows(64, seed=1)
FROM: dict[str, Any] = {"rank": 8, "from": {"fineTuneJob": {"name": "first"}}}
QUICK: dict[str, Any] = {"precision": "fp32", "learningRate": 1e-3, "globalBatchSize": 16, "warmupRatio": 0}


@pytest.fixture(
    scope="module", params=["lora", *(pytest.param(tuner, marks=pytest.mark.deep) for tuner in ("dora", "lokr"))]
)
def first(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> tuple[str, Run]:
    """A tuner, and a run whose adapter is far from its base."""
    folder = tmp_path_factory.mktemp(request.param)
    settings = QUICK | {"learningRate": 1e-2, "epochs": 4}
    run = make_run(folder, tiny, ROWS, settings, tuner=request.param, lora={"rank": 8})
    run.do(train.run)
    return request.param, run


def continued(folder: Path, tiny: Path, first: tuple[str, Run], rows: list[dict[str, Any]], **spec: Any) -> Run:
    tuner, earlier = first
    settings = QUICK | spec.pop("training", {})
    return make_run(folder, tiny, rows, settings, initial=earlier.work.run / "adapter", tuner=tuner, lora=FROM, **spec)


def losses(run: Run) -> list[float]:
    return [entry["loss"] for entry in run.log_history()]


def test_it_begins_where_the_adapter_has_ended_and_merges_into_the_same_base(
    first: tuple[str, Run], tmp_path: Path, tiny: Path
) -> None:
    run = continued(tmp_path, tiny, first, ROWS, training={"maxSteps": 4})
    run.do(train.run)
    before = losses(first[1])
    assert losses(run)[0] < 0.7 * before[0]
    assert losses(run)[0] == pytest.approx(before[-1], rel=0.5)
    report = run.do(export.run)  # compares the logits of the merged model with those of the base and the last adapter
    assert [artifact.name for artifact in report.artifacts or []] == ["adapter", "merged"]


def test_a_stopped_run_resumes_exactly(
    first: tuple[str, Run], tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"maxSteps": 6}
    whole = continued(tmp_path / "whole", tiny, first, ROWS, training=settings)
    expected = whole.do(train.run)
    run = continued(tmp_path / "stopped", tiny, first, ROWS, training=settings)
    resumed, report = stop_and_resume(run, tiny, ROWS, 3, monkeypatch)
    assert losses(resumed) == losses(whole)
    assert [each.digest for each in report.artifacts or []] == [each.digest for each in expected.artifacts or []]


def test_the_reference_of_dpo_is_the_base_with_the_adapter_as_it_was(
    first: tuple[str, Run], tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"maxSteps": 4, "globalBatchSize": 8}
    rows = preferences(32)
    run = continued(tmp_path / "whole", tiny, first, rows, training=settings, method="dpo")
    run.do(train.run)
    begin, *later = run.log_history()
    assert begin["loss"] == pytest.approx(math.log(2), abs=1e-3)
    assert begin["rewards/chosen"] == pytest.approx(0, abs=1e-4)
    assert begin["rewards/rejected"] == pytest.approx(0, abs=1e-4)
    assert max(abs(entry["rewards/margins"]) for entry in later) > 1e-2  # the reference stays behind
    stopped = continued(tmp_path / "stopped", tiny, first, rows, training=settings, method="dpo")
    with stop_after(2, monkeypatch) as pusher:
        assert train.run(stopped.spec, stopped.work, pusher).outcome is Outcome.PREEMPTED
    resumed = again(stopped, tiny, rows, 2)
    train.run(resumed.spec, resumed.work, ProgressPusher(None, None))
    assert losses(resumed) == losses(run)


def test_a_reference_stays_that_of_the_initial_adapter_if_its_weights_are_replaced(tiny: Path) -> None:
    """FSDP puts divided weights in the place of those of which the reference has a copy."""
    import torch
    from peft import LoraConfig, get_peft_model

    from tunesmith_runtime.train.models.files import load_model
    from tunesmith_runtime.train.models.reference import WithInitialAdapter

    adapter = LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
    model = get_peft_model(load_model(tiny, dtype=torch.float32), adapter).eval()
    reference = WithInitialAdapter(model)
    inputs = {name: torch.ones(1, 4, dtype=torch.long) for name in ("input_ids", "attention_mask", "labels")}
    before = reference(inputs).sums
    layer = model.get_submodule("base_model.model.model.layers.0.self_attn.q_proj.lora_A.default")
    trained = layer.weight.detach() * 5
    layer.weight = torch.nn.Parameter(trained.clone())
    assert torch.equal(reference(inputs).sums, before)
    assert torch.equal(layer.weight, trained)
