"""LoRA+: the matrices B learn at another rate than A, in every optimizer, and the schedule changes both alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests import tinymodel
from tests.unit.runtime.train.support import make_run
from tunesmith_runtime import train
from tunesmith_runtime.train.optimizers.rates import set_rates

RATIO = 4


def test_weights_with_another_rate_form_groups_behind_the_others() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    decaying, others = (
        [each[kind] for each in map(dict, map(nn.Module.named_parameters, model.values()))]
        for kind in ("weight", "bias")
    )
    optimizer = torch.optim.AdamW(
        [{"params": decaying, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], lr=0.5
    )
    set_rates(optimizer, model, lambda name: RATIO if name.startswith("b") else 1)
    found = [(len(group["params"]), group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    assert found == [(1, 0.5, 0.1), (1, 0.5, 0.0), (1, 2.0, 0.1), (1, 2.0, 0.0)]


@pytest.mark.parametrize("optimizer", ["adamw", pytest.param("adamw8bit", marks=pytest.mark.deep)])
def test_the_first_step_of_matrices_b_is_as_many_times_as_large(optimizer: str, tmp_path: Path, tiny: Path) -> None:
    """The first step of Adam has the size of the learning rate, whatever the gradient, and B begins with zeros."""
    rate = 1e-3
    training: dict[str, Any] = {
        "maxSteps": 1,
        "learningRate": rate,
        "warmupRatio": 0,
        "scheduler": "constant",
        "optimizer": optimizer,
        "precision": "fp32",
    }
    run = make_run(tmp_path, tiny, tinymodel.rows(16), training, lora={"rank": 4, "plusRatio": RATIO})
    run.do(train.run)
    weights = load_file(run.work.run / "adapter" / "adapter_model.safetensors")
    steps = torch.cat([weight.abs().flatten() for name, weight in weights.items() if "lora_B" in name])
    assert float(steps.median()) == pytest.approx(RATIO * rate, rel=0.02)
    assert [entry["learning_rate"] for entry in run.log_history("learning_rate")] == [pytest.approx(rate)]
