"""Pipelines of processes: other numbers of stages and micro batches than elsewhere, and what ends them."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.unit.runtime.train.strategies.test_sharded_worlds import (
    HELD_OUT,
    ROWS,
    TOLERANCE,
    TWICE,
    assert_equal,
    trained,
)
from tests.unit.runtime.train.support import again, make_run
from tests.unit.runtime.train.world.test_world import DROPOUT, FP32, LONG, LOST, PATIENCE, losses, start
from tests.unit.runtime.train.world.test_world import assert_equal as assert_same_bytes
from tunesmith_api.run import Outcome


def stages(count: int) -> dict[str, Any]:
    return {"parallelism": {"pipelineParallel": count}}


@pytest.fixture(scope="module")
def deeper(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of five layers with a head of its own."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("deeper")
    sizes = {"num_hidden_layers": 5, "layer_types": ["full_attention"] * 5, "tie_word_embeddings": False}
    config = AutoConfig.from_pretrained(tiny, **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    return folder


@pytest.mark.deep
@pytest.mark.parametrize("tuner", ["full", "lora"])
@pytest.mark.parametrize("count", [2, 3])
def test_stages_of_different_sizes_compute_the_steps_of_one_process(
    deeper: Path, tmp_path: Path, count: int, tuner: str
) -> None:
    one, several = (
        make_run(tmp_path / name, deeper, ROWS, TWICE, tuner=tuner, **HELD_OUT, **spec)
        for name, spec in (("one", {}), ("several", stages(count)))
    )
    expected = trained(one, processes=1)
    assert_equal(several, trained(several, processes=count), one, expected)


@pytest.mark.deep
def test_a_stage_without_trained_weights_passes_gradients_on(tiny: Path, tmp_path: Path) -> None:
    for pattern in (r".*layers\.0\.mlp\.up_proj", r".*layers\.1\.mlp\.up_proj"):
        spec = {"lora": {"targetPattern": pattern}}
        folder = tmp_path / pattern[10]
        one, two = (
            make_run(folder / name, tiny, ROWS, TWICE, **spec, **more)
            for name, more in (("one", {}), ("two", stages(2)))
        )
        trained(one, processes=1)
        trained(two)
        assert losses(two) == pytest.approx(losses(one), abs=TOLERANCE)


@pytest.mark.deep
def test_a_step_with_fewer_micro_batches_than_stages_is_computed(tiny: Path, tmp_path: Path) -> None:
    settings = {"precision": "fp32", "microBatchSize": 16, "epochs": 2}
    one, two = (
        make_run(tmp_path / name, tiny, ROWS, settings, tuner="full", **more)
        for name, more in (("one", {}), ("two", stages(2)))
    )
    trained(one, processes=1)
    trained(two)
    assert losses(two) == pytest.approx(losses(one), abs=TOLERANCE)


@pytest.mark.deep
def test_the_tied_weight_stays_the_same_at_both_ends(tiny: Path, tmp_path: Path) -> None:
    """A checkpoint has the weight of the first stage, and the validation loss is computed with that of the last."""
    run = make_run(tmp_path, tiny, ROWS, {**LONG, "learningRate": 1e-2}, tuner="full", **HELD_OUT, **stages(2))
    report = trained(run)
    one = make_run(tmp_path / "one", tiny, ROWS, {**LONG, "learningRate": 1e-2}, tuner="full", **HELD_OUT)
    expected = trained(one, processes=1)
    assert report.metrics
    assert expected.metrics
    assert report.metrics.eval_loss == pytest.approx(expected.metrics.eval_loss, abs=1e-3)


@pytest.mark.deep
def test_a_killed_pipeline_goes_on_from_its_checkpoint(tiny: Path, tmp_path: Path) -> None:
    """Each stage has its own random states: the run ends with the bytes of an undisturbed one."""
    settings = {**FP32, "epochs": 5}
    whole = make_run(tmp_path / "whole", tiny, ROWS, settings, **DROPOUT, **stages(2))
    expected = start(whole, tiny, 1).reports()[0]
    run = make_run(tmp_path / "parts", tiny, ROWS, settings, **DROPOUT, **stages(2))
    pods = start(run, tiny, 1)
    pods.signal_when(signal.SIGKILL, "checkpoint of step 20")
    printed, _ = pods.processes[0].communicate(timeout=PATIENCE)
    pods.processes[1].wait(PATIENCE)
    assert pods.exit_codes() == [LOST, -signal.SIGKILL], printed
    leader, _ = start(run, tiny, 2).reports()
    assert leader.resumed_from_step
    assert leader.resumed_from_step >= 20
    assert_same_bytes(run, leader, (whole, expected))


@pytest.mark.deep
def test_a_pipeline_that_is_stopped_after_its_last_step_measures_its_validation_loss(
    tiny: Path, tmp_path: Path
) -> None:
    """Nothing is left to train then, and each process has the whole model."""
    spec = {"tuner": "full", **HELD_OUT, **stages(2)}
    whole = make_run(tmp_path / "whole", tiny, ROWS, FP32, **spec)
    expected = trained(whole)
    assert expected.metrics
    assert expected.metrics.steps
    run = make_run(tmp_path / "parts", tiny, ROWS, FP32, **spec)
    stopped = trained(run, stop_at=expected.metrics.steps)
    assert stopped.outcome is Outcome.PREEMPTED
    report = trained(again(run, tiny, ROWS, 2))
    assert report.metrics
    assert report.metrics.eval_loss == pytest.approx(expected.metrics.eval_loss, abs=1e-5)
