"""Groups of processes that have a part of the tokens of each row: what goes with weights that are whole in each of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.runtime.train.strategies.test_sharded_worlds import HELD_OUT, ROWS, TOLERANCE, trained
from tests.unit.runtime.train.support import again, make_run
from tests.unit.runtime.train.world.test_world import FP32, losses
from tunesmith_api.run import Outcome

PARTS: dict[str, Any] = {"parallelism": {"contextParallel": 2}}


@pytest.mark.deep
@pytest.mark.parametrize(("tuner", "optimizer"), [("dora", "adamw"), ("full", "muon"), ("ia3", "adafactor")])
def test_other_tuners_and_optimizers_train_on_parts_of_rows(
    tiny: Path, tmp_path: Path, tuner: str, optimizer: str
) -> None:
    settings = {**FP32, "epochs": 2, "optimizer": optimizer}
    one, two = (
        make_run(tmp_path / name, tiny, ROWS, settings, tuner=tuner, **spec)
        for name, spec in (("one", {}), ("two", PARTS))
    )
    trained(one, processes=1)
    trained(two)
    assert losses(two) == pytest.approx(losses(one), abs=10 * TOLERANCE)


@pytest.mark.deep
def test_a_run_that_is_stopped_after_its_last_step_measures_its_validation_loss(tiny: Path, tmp_path: Path) -> None:
    """No step is left, before which the attention of parts would be set."""
    spec = {"tuner": "full", **HELD_OUT, **PARTS}
    whole = make_run(tmp_path / "whole", tiny, ROWS, FP32, **spec)
    expected = trained(whole)
    assert expected.metrics
    assert expected.metrics.steps
    run = make_run(tmp_path / "parts", tiny, ROWS, FP32, **spec)
    assert trained(run, stop_at=expected.metrics.steps).outcome is Outcome.PREEMPTED
    report = trained(again(run, tiny, ROWS, 2))
    assert report.metrics
    assert report.metrics.eval_loss == pytest.approx(expected.metrics.eval_loss, abs=1e-5)
