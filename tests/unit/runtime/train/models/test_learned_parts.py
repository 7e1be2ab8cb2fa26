"""`training.freeze` with parts of a multimodal model: frozen parts keep every bit, and the others learn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraModel
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from tests import tinymodel, tinyvision
from tests.unit.runtime.train.rows.test_media_batches import beside
from tests.unit.runtime.train.support import Run, make_run
from tests.unit.runtime.train.tuners.test_targets import job, model_of
from tests.unit.runtime.train.world.test_world import losses
from tests.unit.runtime.train.worlds import train_together
from tunesmith_api.failures import FailureClass
from tunesmith_api.training import ModelPart
from tunesmith_runtime import export, train
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.export.merge import merge
from tunesmith_runtime.modelcheck.loading import with_adapter
from tunesmith_runtime.multimodal.processor import MediaProcessor
from tunesmith_runtime.train.models.files import load_model, load_tokenizer
from tunesmith_runtime.train.models.learned_parts import keep_in_graph, part_of_weights, rate_factor, trained_numbers
from tunesmith_runtime.train.models.modalities import parts_of
from tunesmith_runtime.train.tuners import TUNERS
from tunesmith_runtime.train.tuners.full import FULL
from tunesmith_runtime.train.tuners.lora import LORA

VISION, ALIGNER, LANGUAGE = ModelPart
SETTINGS = {"epochs": 1, "globalBatchSize": 8, "learningRate": 1e-2}
WITHOUT_LINEAR = ("gemma3", "ovis2")
"""Families whose aligner has no linear layer."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vision")
    return tinyvision.add_processor(tinyvision.make_model(folder, "qwen2_5_vl"), "qwen2_5_vl")


def pictures_run(folder: Path, base: Path, freeze: list[str], texts: int = 0, **spec: Any) -> Run:
    """A run on 16 rows with pictures, and on rows of text."""
    rows = [*tinyvision.picture_rows(folder / "pictures", 16), *tinymodel.rows(texts)]
    training = {**SETTINGS, "freeze": freeze, **spec.pop("training", {})}
    return beside(make_run(folder / "run", base, rows, training, **spec), folder / "pictures")


def changed_parts(base: Path, made: Path) -> set[ModelPart]:
    """The parts with a weight that differs between two folders of one model."""
    model = load_model(base)
    parts, before, after = parts_of(model), model.state_dict(), load_model(made).state_dict()
    return {parts.of(name) for name, weight in before.items() if not weight.equal(after[name])}


@pytest.mark.parametrize("family", tinyvision.FAMILIES)
@pytest.mark.parametrize("freeze", [["vision"], ["language", "aligner"]], ids=str)
def test_no_key_of_an_adapter_lies_below_a_frozen_part(family: str, freeze: list[str]) -> None:
    """Layers of several parts have one name, such as q_proj."""
    model = LORA.apply(tinyvision.skeleton(family), job(training={"freeze": freeze}), None, ())
    learned = {str(part) for part in ModelPart} - {*freeze}
    expected = learned - ({"aligner"} if family in WITHOUT_LINEAR else set())
    assert trained_numbers(model).keys() == expected


@pytest.mark.parametrize(
    ("freeze", "learned"),
    [(["none"], {VISION, ALIGNER, LANGUAGE}), (["vision"], {ALIGNER, LANGUAGE}), (["language", "aligner"], {VISION})],
    ids=str,
)
def test_a_full_training_learns_the_parts_that_are_not_frozen(freeze: list[str], learned: set[ModelPart]) -> None:
    model = FULL.apply(tinyvision.skeleton("qwen3_vl"), job(tuner="full", training={"freeze": freeze}), None, ())
    part_of = part_of_weights(model)
    assert {part_of(name) for name, weight in model.named_parameters() if weight.requires_grad} == learned
    assert {part_of(name) for name, weight in model.named_parameters() if not weight.requires_grad}.isdisjoint(learned)


def test_adapters_on_vision_are_merged_and_counted_and_published_with_their_pixels(base: Path, tmp_path: Path) -> None:
    run = pictures_run(tmp_path, base, ["language"], training={"learningRate": 5e-2, "maxPixels": 512})
    run.do(train.run)
    _, merged = run.do(export.run).artifacts or []
    adapter, folder = (run.work.run / name for name in ("adapter", "merged"))
    assert merged.name == "merged"
    assert changed_parts(base, folder) == {VISION, ALIGNER}

    for published in (adapter, folder):
        settings = json.loads((published / "processor_config.json").read_text())["image_processor"]
        assert settings["size"] == {"shortest_edge": 256, "longest_edge": 512}

    record = json.loads(run.directory.read_bytes("run.json") or b"")
    counts = dict.fromkeys(("vision", "aligner"), 0)
    for name, weight in load_file(adapter / "adapter_model.safetensors").items():
        counts["aligner" if ".merger." in name else "vision"] += weight.numel()
    assert record["trainedParameters"] == counts

    inputs = MediaProcessor.load(base).probe()
    adapted, whole, plain = (
        with_adapter(load_model(base), "default", adapter),
        load_model(folder),
        load_model(base),
    )
    with torch.no_grad():
        logits = [model(**inputs).logits for model in (adapted, whole, plain)]
    assert torch.allclose(logits[0], logits[1], atol=1e-4)
    assert not torch.allclose(logits[0], logits[2], atol=1e-2)


@pytest.mark.deep
@pytest.mark.parametrize("tuner", [name for name in TUNERS if name not in ("prompt", "full")])
def test_every_adapter_learns_on_vision(base: Path, tmp_path: Path, tuner: str) -> None:
    run = pictures_run(tmp_path, base, ["language"], tuner=tuner, training={"epochs": 4, "learningRate": 5e-2})
    run.do(train.run)
    run.do(export.run)
    assert changed_parts(base, run.work.run / "merged") == {VISION, ALIGNER}


def test_weights_that_a_batch_does_not_use_have_a_gradient_of_zero() -> None:
    """LLaVA reads the last layer but one of its tower, and a batch of text none."""
    with torch.random.fork_rng():
        model = AutoModelForImageTextToText.from_config(tinyvision.make_config("llava", [3, 4, 5, 6]))
    FULL.apply(model, job(tuner="full", training={"freeze": ["none"]}), None, ())
    ids = torch.tensor([[7, 8, 9]])
    expected = model(input_ids=ids).logits
    keep_in_graph(model)
    logits = model(input_ids=ids).logits
    assert logits.equal(expected)
    logits.sum().backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []
    assert not model.model.vision_tower.encoder.layers[1].mlp.fc1.weight.grad.any()


@pytest.mark.deep
@pytest.mark.parametrize("tuner", ["lora", "full"])
def test_two_processes_compute_the_steps_of_one_where_some_batches_have_no_images(
    base: Path, tmp_path: Path, tuner: str
) -> None:
    training = {"microBatchSize": 1, "epochs": 2}
    one, two = (
        pictures_run(tmp_path / name, base, ["none"], 16, training=training, tuner=tuner, **spec)
        for name, spec in (("one", {}), ("two", {"parallelism": {"strategy": "ddp"}}))
    )
    assert train_together(one, processes=1)[0].report
    assert all(ended.report for ended in train_together(two))
    assert losses(two) == pytest.approx(losses(one), abs=1e-4)


def test_vision_has_its_own_learning_rate() -> None:
    model = tinyvision.skeleton("qwen2_5_vl")
    training = {"freeze": ["none"], "learningRate": 1e-3, "visionLearningRate": 1e-4}
    factor = rate_factor(job(training=training), model, lambda name: 2.0)
    assert factor
    assert factor("base_model.model.model.visual.merger.mlp.0.lora_A.default.weight") == pytest.approx(0.2)
    assert factor("model.language_model.layers.0.mlp.up_proj.weight") == 2.0
    assert rate_factor(job(), model, None) is None


@pytest.mark.parametrize("tuner", ["lora", "full"])
def test_a_model_of_text_alone_has_no_parts(tuner: str) -> None:
    settings: Any = job(tuner=tuner, training={"freeze": ["vision"]})
    with pytest.raises(RunFailure, match="names vision, and the base model does not read images") as failure:
        TUNERS[settings.tuner].check(model_of("llama"), settings, ())
    assert failure.value.failure is FailureClass.BAD_SPEC
    assert failure.value.hint == "remove vision from spec.training.freeze, or name a multimodal model"


def test_layers_of_frozen_parts_are_no_targets() -> None:
    settings = job(training={"freeze": ["vision"]}, lora={"targetModules": ["q_proj", "qkv"]})
    with pytest.raises(RunFailure, match=r"'qkv' names only modules of frozen parts \(training.freeze\): vision"):
        LORA.check(tinyvision.skeleton("qwen2_5_vl"), settings, ())
    LORA.check(
        tinyvision.skeleton("qwen2_5_vl"), job(training={"freeze": ["none"]}, lora={"targetModules": ["qkv"]}), ()
    )


def test_a_part_without_linear_layers_takes_no_adapter(caplog: pytest.LogCaptureFixture) -> None:
    LORA.check(tinyvision.skeleton("gemma3"), job(training={"freeze": ["vision"]}), ())
    assert "aligner has no linear layer that LoRA can adapt: it is not trained" in caplog.text
    settings = job(training={"freeze": ["vision", "language"]})
    with pytest.raises(RunFailure, match=r"the parts that training\.freeze leaves, aligner, have no linear layer"):
        LORA.check(tinyvision.skeleton("gemma3"), settings, ())


def test_a_merge_that_loses_an_update_of_vision_is_found_on_an_image(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = job(lora={"rank": 4}, training={"freeze": ["language"]})
    model = LORA.apply(load_model(base), settings, None, ())
    for name, weight in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(weight)
    model.save_pretrained(tmp_path / "adapter")
    load_tokenizer(base).save_pretrained(tmp_path / "adapter")
    monkeypatch.setattr(LoraModel, "merge_and_unload", lambda self, **_: self.unload())
    with pytest.raises(RunFailure) as failure:
        merge(base, tmp_path / "adapter", tmp_path / "merged", [])
    assert failure.value.failure is FailureClass.MERGE_MISMATCH
