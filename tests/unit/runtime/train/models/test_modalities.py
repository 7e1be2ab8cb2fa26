"""Multimodal models are tuned on text rows: their decoder is trained, and their vision parts stay unchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests import tinymodel, tinyvision
from tests.unit.runtime.train.support import Run, make_run
from tests.unit.runtime.train.world.test_world import FP32, losses
from tests.unit.runtime.train.worlds import train_together
from tunesmith_api.failures import FailureClass
from tunesmith_api.run import Outcome
from tunesmith_api.training import ModelPart, Training
from tunesmith_runtime import export, train
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.storage.directory import download_directory
from tunesmith_runtime.train.models.files import load_model
from tunesmith_runtime.train.models.modalities import other_parts, parts_of
from tunesmith_runtime.train.tuners.freeze import freeze
from tunesmith_runtime.train.tuners.full import FULL

QUICK = ("qwen2_5_vl", "llava")
BY_FAMILY = [pytest.param(each, marks=() if each in QUICK else pytest.mark.deep) for each in tinyvision.FAMILIES]
OTHER_TUNERS = ("dora", "adalora", "oft", "ia3", "loha", "lokr", "miss", "qlora")
SETTINGS = {"epochs": 1, "globalBatchSize": 8}
ROWS = tinymodel.rows(64, seed=1)
PROCESSOR = {"image_processor_type": "SiglipImageProcessor", "size": {"height": 32, "width": 32}}


def base_of(folder: Path, family: str) -> Path:
    """A tiny model of a family, with the settings of its image processor."""
    base = tinyvision.make_model(folder, family)
    (base / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return base


def published(run: Run, folder: Path) -> Path:
    """The last artifact of the run, as a user downloads it."""
    artifacts = run.do(export.run).artifacts or []
    download_directory(run.directory.storage, artifacts[-1].uri, folder)
    return folder


def is_vision(name: str) -> bool:
    return any(part in f".{name}" for part in ("visual", "vision", "projector", "connector", "aligner"))


@pytest.mark.parametrize("family", BY_FAMILY)
@pytest.mark.parametrize("tuner", ["lora", "full"])
def test_the_decoder_is_trained_on_text_and_the_vision_parts_keep_every_bit(
    tmp_path: Path, family: str, tuner: str
) -> None:
    base = base_of(tmp_path / "base", family)
    run = make_run(tmp_path / "run", base, ROWS, SETTINGS, tuner=tuner)
    assert run.do(train.run).outcome is Outcome.SUCCEEDED
    assert losses(run)[-1] < losses(run)[0] - 1

    made = published(run, tmp_path / "made")
    assert json.loads((made / "preprocessor_config.json").read_text()) == PROCESSOR
    assert json.loads((made / "config.json").read_text())["model_type"] == family
    before, after = load_file(base / "model.safetensors"), load_file(made / "model.safetensors")
    assert after.keys() == before.keys()
    changed = {name for name, tensor in after.items() if not tensor.equal(before[name])}
    assert changed
    assert not [name for name in changed if is_vision(name)]
    assert type(load_model(made)) is type(load_model(base))


def test_a_step_is_the_mean_over_its_tokens_however_rows_are_spread_over_micro_batches(tmp_path: Path) -> None:
    """The class of this family sets accepts_loss_kwargs to False, with which the Trainer averages micro batches."""
    base = base_of(tmp_path / "base", "qwen2_5_vl")
    rows = [
        {"messages": [*row["messages"][:1], {"role": "assistant", "content": "x " * (1 + 3 * (at % 8))}]}
        for at, row in enumerate(ROWS)
    ]
    whole, parts = (
        make_run(tmp_path / str(size), base, rows[:32], {**SETTINGS, "microBatchSize": size}) for size in (8, 2)
    )
    for run in (whole, parts):
        run.do(train.run)
    assert losses(parts) == pytest.approx(losses(whole), abs=1e-4)


@pytest.mark.deep
@pytest.mark.parametrize(
    ("parallelism", "tuner"),
    [
        ({"strategy": "ddp"}, "full"),
        ({"strategy": "fsdp"}, "lora"),
        ({"strategy": "zero2"}, "full"),
        ({"strategy": "zero3"}, "lora"),
        ({"tensorParallel": 2}, "lora"),
    ],
    ids=str,
)
def test_two_processes_compute_the_steps_of_one(tmp_path: Path, parallelism: dict[str, Any], tuner: str) -> None:
    base, rows = base_of(tmp_path / "base", "qwen2_5_vl"), tinymodel.rows(90, seed=1)
    one, two = (
        make_run(tmp_path / name, base, rows, {**FP32, "epochs": 1}, tuner=tuner, **spec)
        for name, spec in (("one", {}), ("two", {"parallelism": parallelism}))
    )
    assert train_together(one, processes=1)[0].report
    assert train_together(two)[0].report
    assert losses(two) == pytest.approx(losses(one), abs=1e-4)


@pytest.mark.parametrize("parallelism", [{"pipelineParallel": 2}, {"contextParallel": 2}], ids=str)
def test_a_division_that_does_not_know_the_family_is_refused(tmp_path: Path, parallelism: dict[str, int]) -> None:
    base = base_of(tmp_path / "base", "qwen2_5_vl")
    run = make_run(tmp_path / "run", base, ROWS, FP32, tuner="full", parallelism=parallelism)
    ended = train_together(run)[0]
    assert ended.failure
    assert ended.failure.startswith(f"BadSpec: parallelism.{next(iter(parallelism))}: ")


def test_an_adapter_has_no_weights_in_vision_parts(tmp_path: Path) -> None:
    """Layers of both parts of this family are named q_proj."""
    base = base_of(tmp_path / "base", "llava")
    run = make_run(tmp_path / "run", base, ROWS[:16], SETTINGS, lora={"targetModules": ["q_proj"]})
    run.do(train.run)
    names = load_file(run.work.run / "adapter" / "adapter_model.safetensors").keys()
    assert names
    assert all("language_model" in name for name in names)


def test_the_parts_beside_the_decoder_are_as_few_as_contain_them_all(tmp_path: Path) -> None:
    assert other_parts(load_model(base_of(tmp_path / "llava", "llava"))) == [
        "model.vision_tower",
        "model.multi_modal_projector",
    ]
    assert other_parts(load_model(tinymodel.make_model(tmp_path / "text"))) == []
    assert other_parts(load_model(base_of(tmp_path / "mllama", "mllama"))) == [
        "model.vision_model",
        "model.multi_modal_projector",
        "model.language_model.layers.1",  # attends to images alone
    ]


ALIGNERS = {
    "qwen2_vl": {"visual.merger"},
    "qwen2_5_vl": {"visual.merger"},
    "qwen3_vl": {"visual.merger", "visual.deepstack_merger_list"},
    "qwen3_5": {"visual.merger"},
    "glm4v": {"visual.merger"},
    "internvl": {"multi_modal_projector"},
    "llava": {"multi_modal_projector"},
    "llava_onevision": {"multi_modal_projector", "image_newline"},
    "gemma3": {"multi_modal_projector"},
    "mistral3": {"multi_modal_projector"},
    "paligemma": {"multi_modal_projector"},
    "lfm2_vl": {"multi_modal_projector"},
    "smolvlm": {"connector"},
    "mllama": {"multi_modal_projector", "language_model.layers.1"},
    "deepseek_vl": {"aligner"},
    "ovis2": {"visual_embeddings_table"},
}
TOWERS = {"model.visual", "model.vision_tower", "model.vision_model"}


@pytest.mark.parametrize("family", tinyvision.FAMILIES)
def test_each_family_has_a_tower_and_an_aligner(family: str) -> None:
    parts = parts_of(tinyvision.skeleton(family)).of_prefix
    named = {part: {name for name, each in parts.items() if each is part} for part in ModelPart}
    assert len(named[ModelPart.VISION]) == 1
    assert named[ModelPart.VISION] <= TOWERS
    assert named[ModelPart.ALIGNER] == {f"model.{name}" for name in ALIGNERS[family]}


def test_the_head_of_a_classifier_is_a_part_that_is_trained(tmp_path: Path, tiny: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=1)
    assert other_parts(model) == []
    FULL.apply(model, make_run(tmp_path, tiny, ROWS[:1], tuner="full").spec.fine_tune_job())
    assert model.score.weight.requires_grad


def test_a_model_with_vision_modules_inside_its_decoder_is_refused() -> None:
    import torch
    from transformers import GitConfig, GitForCausalLM

    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    with torch.device("meta"):
        model = GitForCausalLM(GitConfig(vision_config={**small, "image_size": 32, "patch_size": 8}, **small))
    with pytest.raises(RunFailure, match="the vision modules of a GitForCausalLM are part of its decoder") as failure:
        other_parts(model)
    assert failure.value.failure is FailureClass.BAD_SPEC


def test_layers_to_freeze_are_those_of_the_decoder(tmp_path: Path) -> None:
    """The vision tower has as many, and comes first."""
    model = load_model(base_of(tmp_path / "base", "llava"))
    freeze(model, Training(freeze=["layers:0-0"]))
    frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad and not is_vision(name)}
    assert frozen
    assert all(name.startswith("model.language_model.layers.0.") for name in frozen)


def test_nothing_is_left_to_train_if_the_whole_decoder_is_frozen(tmp_path: Path) -> None:
    base = base_of(tmp_path / "base", "llava")
    parts = ["pattern:model\\.language_model\\..*", "pattern:lm_head\\..*"]
    run = make_run(tmp_path / "run", base, ROWS[:16], {**SETTINGS, "freeze": parts}, tuner="full")
    with pytest.raises(RunFailure, match="all weights of the model are frozen"):
        run.do(train.run)


def test_a_layer_that_only_a_vision_tower_has_is_refused_with_those_of_the_decoder(tmp_path: Path) -> None:
    base = base_of(tmp_path / "base", "qwen2_5_vl")
    run = make_run(tmp_path / "run", base, ROWS[:16], SETTINGS, lora={"targetModules": ["qkv"]})
    with pytest.raises(RunFailure, match="'qkv'") as failure:
        run.do(train.run)
    assert failure.value.hint
    assert "choose from down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in failure.value.hint
    assert "'qkv' names only modules of frozen parts (training.freeze): vision" in failure.value.message


@pytest.mark.parametrize("tuner", ["vera", *(pytest.param(each, marks=pytest.mark.deep) for each in OTHER_TUNERS)])
def test_every_adapter_is_merged_into_the_decoder_alone(tmp_path: Path, tuner: str) -> None:
    base = base_of(tmp_path / "base", "llava")
    run = make_run(tmp_path / "run", base, ROWS, {**SETTINGS, "learningRate": 2e-2}, tuner=tuner)
    run.do(train.run)
    names = load_file(run.work.run / "adapter" / "adapter_model.safetensors").keys()
    assert not [name for name in names if is_vision(name)]
    made = published(run, tmp_path / "made")
    before, after = load_file(base / "model.safetensors"), load_file(made / "model.safetensors")
    changed = {name for name, tensor in after.items() if not tensor.equal(before[name])}
    assert changed
    assert not [name for name in changed if is_vision(name)]


def test_an_adapter_with_weights_in_a_vision_part_is_not_trained_further(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = base_of(tmp_path / "base", "llava")
    config = LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(load_model(base), config).save_pretrained(tmp_path / "adapter")
    lora = {"rank": 4, "from": {"fineTuneJob": {"name": "first"}}}
    run = make_run(tmp_path / "run", base, ROWS[:16], SETTINGS, tmp_path / "adapter", lora=lora)
    with pytest.raises(RunFailure, match=r"lora\.from: the adapter has weights in model\.vision_tower") as failure:
        run.do(train.run)
    assert failure.value.failure is FailureClass.BAD_SPEC


def test_modules_that_are_saved_whole_are_those_of_the_decoder(tmp_path: Path) -> None:
    base = base_of(tmp_path / "base", "qwen3_vl")
    run = make_run(tmp_path / "run", base, ROWS[:16], SETTINGS, lora={"modulesToSave": ["norm"]})
    run.do(train.run)
    names = load_file(run.work.run / "adapter" / "adapter_model.safetensors").keys()
    assert any(name.endswith("language_model.norm.weight") for name in names)
    assert not [name for name in names if is_vision(name)]


def test_a_method_of_another_head_is_refused_before_weights_are_read(tmp_path: Path) -> None:
    base = base_of(tmp_path / "base", "qwen2_5_vl")
    rows = [{"text": "a", "label": 0}, {"text": "b", "label": 1}] * 8
    run = make_run(tmp_path / "run", base, rows, SETTINGS, method="classify")
    with pytest.raises(
        RunFailure, match="no AutoModelForSequenceClassification of the model type qwen2_5_vl"
    ) as failure:
        run.do(train.run)
    assert failure.value.failure is FailureClass.BAD_SPEC
