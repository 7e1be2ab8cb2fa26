"""A generation config that transformers loads and does not save must not end a run after its training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import tinymodel
from tests.unit.runtime.modelcheck.families import copy, edit_json
from tests.unit.runtime.train.support import make_run
from tunesmith_runtime import export, train

SETTINGS: dict[str, dict[str, Any]] = {
    "a temperature without sampling, as Llama 2 has": {"do_sample": False, "temperature": 0.6, "top_p": 0.9},
    "a beam setting without beams": {"num_beams": 1, "length_penalty": 2.0},
}


@pytest.mark.parametrize("tuner", ["lora", "full"])
@pytest.mark.parametrize("name", SETTINGS)
def test_contradicting_generation_settings_are_kept_in_the_result(
    tmp_path: Path, tiny: Path, tuner: str, name: str
) -> None:
    model = copy(tiny, tmp_path / "model")
    edit_json(model / "generation_config.json", lambda content: content.update(SETTINGS[name]))
    rows, training = tinymodel.rows(16, seed=1), {"maxSteps": 2, "learningRate": 1e-2}
    run = make_run(tmp_path / "run", model, rows, training, tuner=tuner, checkpoint={"everySteps": 1})
    run.do(train.run)
    run.do(export.run)
    saved = json.loads(
        (run.work.run / {"lora": "merged", "full": "model"}[tuner] / "generation_config.json").read_text()
    )
    assert saved | SETTINGS[name] == saved
    assert saved["eos_token_id"]


def test_generation_settings_in_config_json_do_not_fail_a_run(tmp_path: Path, tiny: Path) -> None:
    model = copy(tiny, tmp_path / "model")
    (model / "generation_config.json").unlink()
    edit_json(model / "config.json", lambda content: content.update(do_sample=False, temperature=0.6, top_p=0.9))
    run = make_run(tmp_path / "run", model, tinymodel.rows(16, seed=1), {"maxSteps": 2, "learningRate": 1e-2})
    run.do(train.run)
    run.do(export.run)
    assert (run.work.run / "merged/model.safetensors").is_file()
