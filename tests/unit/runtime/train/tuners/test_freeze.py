"""`training.freeze`: frozen parts keep every bit, and parts that the model does not have are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests import tinymodel
from tests.unit.runtime.train.support import Run, make_run, stop_and_resume
from tests.unit.runtime.train.tuners.test_targets import job, model_of
from tunesmith_runtime import train
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.tuners.full import FULL

ROWS = tinymodel.rows(48)
TIED = ["embeddings", "head"]


def frozen_run(folder: Path, tiny: Path, parts: list[str]) -> Run:
    training = {"maxSteps": 6, "globalBatchSize": 8, "precision": "fp32", "learningRate": 1e-3, "freeze": parts}
    return make_run(folder, tiny, ROWS, training, tuner="full")


def test_frozen_parts_keep_every_bit_and_a_stopped_run_resumes_exactly(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [*TIED, "layers:0", r"pattern:.*\.mlp\.down_proj\.weight"]
    run = frozen_run(tmp_path / "whole", tiny, parts)
    expected = run.do(train.run)
    trained, base = load_file(run.work.run / "model" / "model.safetensors"), load_file(tiny / "model.safetensors")
    same = {name for name, weight in base.items() if trained[name].equal(weight)}
    assert same == {
        name for name in base if ".layers.0." in name or "embed_tokens" in name or name.endswith("mlp.down_proj.weight")
    }
    stopped = frozen_run(tmp_path / "stopped", tiny, parts)
    _, report = stop_and_resume(stopped, tiny, ROWS, 3, monkeypatch)
    assert [each.digest for each in report.artifacts or []] == [each.digest for each in expected.artifacts or []]


@pytest.mark.parametrize(
    ("kind", "parts", "frozen"),
    [
        ("llama", ["embeddings"], {"model.embed_tokens.weight"}),
        ("llama", ["head"], {"lm_head.weight"}),
        ("qwen3", TIED, {"model.embed_tokens.weight"}),
        ("gpt2", TIED, {"transformer.wte.weight", "transformer.wpe.weight"}),
        ("llama", ["pattern:.*norm.weight"], None),
    ],
)
def test_a_part_has_the_weights_that_its_name_says(kind: str, parts: list[str], frozen: set[str] | None) -> None:
    model = model_of(kind)
    FULL.apply(model, job(tuner="full", training={"freeze": parts}), None, ())
    found = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    assert found == (frozen or {name for name, _ in model.named_parameters() if name.endswith("norm.weight")})


@pytest.mark.parametrize("kind", ["gpt2", "llama", "mixtral", "mamba", "opt"])
def test_layers_are_found_in_every_architecture(kind: str) -> None:
    model = model_of(kind)
    FULL.apply(model, job(tuner="full", training={"freeze": ["layers:1-1"]}), None, ())
    found = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    assert found == {name for name, _ in model.named_parameters() if ".1." in name.partition("experts")[0]}


@pytest.mark.parametrize(
    ("kind", "parts", "why", "hint"),
    [
        ("qwen3", ["head"], "shares its weight with", "[embeddings, head]"),
        ("llama", ["layers:1-2"], "'layers:1-2' is no range of the model's layers, 0 to 1", "layers:0-1"),
        ("llama", ["layers:1-0"], "is no range", "layers:0-1"),
        ("llama", ["pattern:q_proj"], "names no weight of the model", "matches whole names"),
        ("llama", ["pattern:("], "has no regular expression", "correct spec.training.freeze"),
        ("llama", ["pattern:.*"], "all weights of the model are frozen", "name fewer parts"),
    ],
)
def test_parts_that_the_model_does_not_have_are_refused(kind: str, parts: list[str], why: str, hint: str) -> None:
    settings: Any = job(tuner="full", training={"freeze": parts})
    with pytest.raises(RunFailure, match=r"training\.freeze") as failure:
        FULL.check(model_of(kind), settings, ())
    assert why in failure.value.message
    assert hint in str(failure.value.hint)
