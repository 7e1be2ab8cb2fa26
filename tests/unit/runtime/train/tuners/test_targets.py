"""lora.targetModules is checked against the names and shapes of the model, and each hint names what is accepted."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tests import tinymodel
from tests.unit.runtime.train.support import make_run
from tunesmith_api.failures import FailureClass
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.run import Outcome
from tunesmith_api.tuners import Lora
from tunesmith_runtime import export, train
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.models.weight_change import has_effect
from tunesmith_runtime.train.tuners.lora import LORA as tuner
from tunesmith_runtime.train.tuners.lora import updates
from tunesmith_runtime.train.tuners.oft import OFT
from tunesmith_runtime.train.tuners.targets import check_targets, linear_names, skeleton

SMALL: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "vocab_size": 128, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GPT2: dict[str, Any] = {
    "n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 128, "n_positions": 64, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gpt2": GPT2,
    "llama": SMALL,
    "qwen3": SMALL | {"head_dim": 8, "tie_word_embeddings": True},
    "phi3": SMALL,
    "opt": SMALL | {"ffn_dim": 64},
    "gpt_neox": SMALL,
    "rwkv": {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 128, "attention_hidden_size": 32},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 128, "state_size": 8},
    "mixtral": SMALL | {"num_local_experts": 4},
    "deepseek_v3": SMALL
    | {
        "q_lora_rank": 8, "kv_lora_rank": 8, "n_routed_experts": 4, "moe_intermediate_size": 16, "n_group": 1,
        "first_k_dense_replace": 1, "num_experts_per_tok": 2, "topk_group": 1,
    },
}  # fmt: skip
HEADS = ("lm_head", "head", "embed_out", "score")


def model_of(kind: str, device: str = "meta") -> PreTrainedModel:
    """Return a small model of an architecture, on the meta device by default."""
    with torch.device(device):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **ARCHITECTURES[kind]))
    return model


def job(**spec: Any) -> FineTuneJobSpec:
    made = {"model": {"uri": "s3://models/m"}, "datasets": [{"uri": "s3://data/d"}], **spec}
    return FineTuneJobSpec.model_validate(made)


def refusal(model: nn.Module, *names: str, merge: bool = True) -> RunFailure:
    with pytest.raises(RunFailure, match=r"lora\.targetModules") as failure:
        check_targets(model, Lora(target_modules=list(names)), merge)
    assert failure.value.failure is FailureClass.BAD_SPEC
    return failure.value


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_each_proposed_name_is_accepted_and_no_head_is_proposed(kind: str) -> None:
    """Both by `check_targets` and by peft."""
    names = linear_names(model_of(kind))
    assert names
    assert not set(names) & set(HEADS)
    for name in names:
        tuner.check(model_of(kind), job(lora={"rank": 4, "targetModules": [name]}))
    hint = refusal(model_of(kind), "wqkv").hint
    assert hint == f"choose from {', '.join(names)}, or remove spec.lora.targetModules to adapt all linear layers"


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_without_names_every_architecture_can_be_adapted(kind: str) -> None:
    tuner.check(model_of(kind), job())
    model = tuner.apply(model_of(kind, "cpu"), job())
    assert not any(has_effect(update, weight) for update, weight in updates(model))


def test_the_hint_lists_the_layers_of_gpt2() -> None:
    failure = refusal(model_of("gpt2"), "q_proj", "v_proj")
    assert "'q_proj'" in failure.message
    assert "'v_proj'" in failure.message
    assert "c_attn, c_fc, c_proj" in str(failure.hint)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("wqkv", "no module"),
        ("Q_PROJ", "no module"),
        ("q_proj ", "no module"),
        ("proj", "no module"),
        ("all-linear", "no module"),
        (r".*q_proj", "no module"),
        ("q_proj|v_proj", "no module"),
        ("model.q_proj", "no module"),
        ("lora_A", "no module"),
        ("lm_head", "output head"),
        ("input_layernorm", "is not a linear layer"),
        ("norm", "is not a linear layer"),
        ("rotary_emb", "is not a linear layer"),
        ("act_fn", "is not a linear layer"),
        ("self_attn", "is not a linear layer"),
        ("layers", "is not a linear layer"),
        ("0", "is not a linear layer"),
        ("embed_tokens", "shares its weight with lm_head"),
        ("model.embed_tokens", "shares its weight with lm_head"),
    ],
)
def test_an_invalid_name_is_refused_also_beside_a_valid_name(name: str, why: str) -> None:
    model = model_of("qwen3")
    assert why in refusal(model, name).message
    failure = refusal(model, "q_proj", name)
    assert repr(name) in failure.message
    assert "'q_proj'" not in failure.message
    proposed = re.match(r"write spec\.lora\.targetModules: \[(.*?)\]", str(failure.hint))
    assert proposed
    check_targets(model, Lora(target_modules=proposed[1].split(", ")))


def test_an_empty_list_is_refused() -> None:
    assert refusal(model_of("llama")).message == "lora.targetModules is empty"


@pytest.mark.parametrize("name", ["layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj", "self_attn.q_proj"])
def test_a_longer_name_selects_some_of_the_layers(name: str) -> None:
    check_targets(model_of("llama"), Lora(target_modules=[name]))


def test_a_tied_embedding_is_adapted_only_without_a_merge() -> None:
    failure = refusal(model_of("qwen3"), "embed_tokens")
    assert "export.merge: false" in str(failure.hint)
    check_targets(model_of("qwen3"), Lora(target_modules=["embed_tokens"]), merge=False)
    check_targets(model_of("llama"), Lora(target_modules=["embed_tokens"]))
    assert "export.merge" not in str(refusal(model_of("qwen3"), "embed_tokens", "wqkv").hint)


def pattern_refusal(kind: str, pattern: str) -> RunFailure:
    with pytest.raises(RunFailure, match=r"lora\.targetPattern") as failure:
        tuner.check(model_of(kind), job(lora={"rank": 4, "targetPattern": pattern}), ())
    return failure.value


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        (r"model\.layers\.1\..*", 7),
        (r".*\.(q|v)_proj", 4),
        (r"model\.layers\.0\.mlp\.up_proj", 1),
        (".*", 14),
    ],
)
def test_a_pattern_adapts_the_linear_layers_whose_whole_names_match(pattern: str, count: int) -> None:
    """Neither the head nor what is not linear, which the pattern may match too."""
    model = tuner.apply(model_of("qwen3"), job(lora={"rank": 4, "targetPattern": pattern}), None, ())
    names = {name.partition(".lora_A")[0] for name, _ in model.named_parameters() if ".lora_A" in name}
    assert len(names) == count
    assert all(re.fullmatch(pattern, name.removeprefix("base_model.model.")) for name in names)


@pytest.mark.parametrize("pattern", ["q_proj", "lm_head", r".*norm", r"model\.embed_tokens"])
def test_a_pattern_that_matches_no_linear_layer_is_refused_with_their_names(pattern: str) -> None:
    failure = pattern_refusal("llama", pattern)
    assert (
        failure.message
        == f"lora.targetPattern {pattern!r} matches the whole name of no linear layer that can be adapted"
    )
    assert "model.layers.0.self_attn.q_proj, which end with down_proj, gate_proj, k_proj" in str(failure.hint)


def test_a_pattern_that_is_no_regular_expression_is_refused() -> None:
    assert "is no regular expression: missing )" in pattern_refusal("llama", "(").message


def test_experts_are_adapted_by_their_names_in_the_files() -> None:
    check_targets(model_of("mixtral"), Lora(target_modules=["w1", "w2", "w3"]))
    assert "without also targeting" in refusal(model_of("mixtral"), "w1").message


def test_other_errors_of_peft_are_raised_before_weights_are_read() -> None:
    with pytest.raises(RunFailure, match="lora_dropout") as failure:
        tuner.check(model_of("deepseek_v3"), job(lora={"dropout": 0.1}))
    assert failure.value.hint == "set spec.lora.dropout: 0"
    tuner.check(model_of("deepseek_v3"), job(lora={"dropout": 0}))


def test_a_rank_above_the_size_of_a_layer_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_targets(model_of("llama"), Lora(rank=33, target_modules=["q_proj"]))
    assert "lora.rank 33 is more than the 32 dimensions" in caplog.text
    caplog.clear()
    check_targets(model_of("llama"), Lora(rank=32, target_modules=["q_proj"]))
    assert not caplog.text


def test_the_skeleton_has_names_and_ties_on_the_meta_device(tiny: Path) -> None:
    model = skeleton(tiny)
    assert {weight.device.type for weight in model.parameters()} == {"meta"}
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


@pytest.mark.parametrize("names", [["wqkv"], ["q_proj", "embed_tokens"]])
def test_bad_target_modules_are_refused_before_weights_are_read(tmp_path: Path, tiny: Path, names: list[str]) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for path in tiny.iterdir():
        if path.suffix != ".safetensors":
            (model / path.name).symlink_to(path)
    run = make_run(tmp_path / "run", model, tinymodel.rows(8), lora={"targetModules": names})
    with pytest.raises(RunFailure, match=r"lora\.targetModules") as failure:
        run.do(train.run)
    assert failure.value.failure is FailureClass.BAD_SPEC


def gpt2(folder: Path) -> Path:
    """A GPT-2 for the tiny task."""
    tokenizer = tinymodel.make_tokenizer()
    config = AutoConfig.for_model("gpt2", **GPT2 | {"vocab_size": 512, "n_positions": 128})
    config.eos_token_id, config.bos_token_id, config.pad_token_id = tokenizer.eos_token_id, None, tokenizer.pad_token_id
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("lora", [{}, {"targetModules": ["c_attn", "c_proj"]}])
def test_a_gpt2_is_tuned_and_merged(tmp_path: Path, lora: dict[str, Any]) -> None:
    run = make_run(tmp_path / "run", gpt2(tmp_path / "model"), tinymodel.rows(16), {"epochs": 1}, lora=lora)
    run.do(train.run)
    assert run.do(export.run).outcome is Outcome.SUCCEEDED


def experts(folder: Path, kind: str) -> Path:
    """A mixture of experts for the tiny task."""
    tokenizer = tinymodel.make_tokenizer()
    sizes: dict[str, Any] = {"mixtral": {"num_local_experts": 4}, "qwen3_moe": EXPERTS}[kind]
    config = AutoConfig.for_model(kind, **SMALL | {"vocab_size": 512, "max_position_embeddings": 128} | sizes)
    config.eos_token_id, config.bos_token_id, config.pad_token_id = tokenizer.eos_token_id, None, tokenizer.pad_token_id
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 8}


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("qwen3_moe", ["gate_proj", "up_proj", "down_proj"]),
        pytest.param("qwen3_moe", ["q_proj", "gate_proj", "up_proj", "down_proj"], marks=pytest.mark.deep),
        pytest.param("mixtral", ["w1", "w2", "w3"], marks=pytest.mark.deep),
    ],
)
def test_experts_are_trained_and_merged(kind: str, names: list[str], tmp_path: Path) -> None:
    model = experts(tmp_path / "model", kind)
    training = {"maxSteps": 4, "learningRate": 1e-2, "precision": "fp32"}
    run = make_run(tmp_path / "run", model, tinymodel.rows(32), training, lora={"rank": 4, "targetModules": names})
    run.do(train.run)
    saved = load_file(run.work.run / "adapter" / "adapter_model.safetensors")
    outward = [weight for name, weight in saved.items() if "experts" in name and "lora_B" in name]
    assert outward
    assert all(bool(weight.any()) for weight in outward)
    run.do(export.run)  # compares the logits of the merged model with those of base and adapter
    base, merged = (load_file(path / "model.safetensors") for path in (model, run.work.run / "merged"))
    changed = {name for name, weight in base.items() if not merged[name].equal(weight)}
    assert changed == {name for name in base if any(f".{each}." in name for each in names)}


def test_the_hint_for_a_tied_embedding_works(tmp_path: Path, tiny: Path) -> None:
    lora = {"targetModules": ["q_proj", "embed_tokens"]}
    run = make_run(tmp_path, tiny, tinymodel.rows(16), {"epochs": 1}, lora=lora, export={"merge": False})
    run.do(train.run)
    assert run.do(export.run).outcome is Outcome.SUCCEEDED


def test_blocks_that_do_not_divide_the_inputs_of_a_layer_are_refused_with_a_size_that_does() -> None:
    refused = job(tuner="oft", lora={"rank": 10})
    with pytest.raises(RunFailure, match="divides neither the") as failure:
        OFT.check(model_of("llama"), refused)
    size = int(str(failure.value.hint).rsplit(" ", 1)[-1])
    OFT.check(model_of("llama"), job(tuner="oft", lora={"rank": size}))
