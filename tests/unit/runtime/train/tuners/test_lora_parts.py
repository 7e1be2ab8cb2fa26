"""`lora.modulesToSave` and `lora.trainableTokens`: what is trained beside the layers of LoRA is published, merged and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tests import tinymodel
from tests.unit.runtime.train.support import Run, make_run, stop_and_resume
from tests.unit.runtime.train.tuners.test_targets import job, model_of
from tunesmith_runtime import export, train
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.tuners.lora import LORA
from tunesmith_runtime.train.tuners.saved_modules import token_ids

ROWS = tinymodel.rows(48)
TABLE, NORM = "model.embed_tokens.weight", "model.norm.weight"
TOKENS = ["<|im_end|>", " kiwi"]


def parts_run(folder: Path, model: Path, tuner: str = "lora", **lora: Any) -> Run:
    training = {"maxSteps": 6, "globalBatchSize": 8, "precision": "fp32", "learningRate": 1e-2}
    return make_run(folder, model, ROWS, training, tuner=tuner, lora={"rank": 4, **lora})


def losses(run: Run) -> list[float]:
    return [entry["loss"] for entry in run.log_history()]


def merged_by(run: Run) -> dict[str, torch.Tensor]:
    """Train, and return the weights of the merged model, whose logits export has compared with those of base and adapter."""
    run.do(train.run)
    assert losses(run)[-1] < losses(run)[0]
    run.do(export.run)
    return load_file(run.work.run / "merged" / "model.safetensors")


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """The tiny model with an output head of its own."""
    folder = tmp_path_factory.mktemp("untied")
    config = AutoConfig.from_pretrained(tiny, tie_word_embeddings=False)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ["embed_tokens", pytest.param("lm_head", marks=pytest.mark.deep)])
def test_tied_embeddings_are_trained_as_one_matrix_and_stay_tied(name: str, tmp_path: Path, tiny: Path) -> None:
    merged = merged_by(parts_run(tmp_path, tiny, modulesToSave=[name, "norm"]))
    base = load_file(tiny / "model.safetensors")
    assert "lm_head.weight" not in merged
    assert not merged[TABLE].equal(base[TABLE])
    assert not merged[NORM].equal(base[NORM])
    assert merged["model.layers.0.input_layernorm.weight"].equal(base["model.layers.0.input_layernorm.weight"])


@pytest.mark.deep
@pytest.mark.parametrize("name", ["embed_tokens", "lm_head"])
def test_of_an_embedding_and_a_head_that_are_not_tied_only_the_named_one_changes(
    name: str, tmp_path: Path, untied: Path
) -> None:
    merged, base = merged_by(parts_run(tmp_path, untied, modulesToSave=[name])), load_file(untied / "model.safetensors")
    changed = {full for full in (TABLE, "lm_head.weight") if not merged[full].equal(base[full])}
    assert changed == {next(full for full in (TABLE, "lm_head.weight") if name in full)}


def test_only_the_embeddings_of_trained_tokens_change(tmp_path: Path, tiny: Path) -> None:
    merged = merged_by(parts_run(tmp_path, tiny, trainableTokens=TOKENS))
    base = load_file(tiny / "model.safetensors")[TABLE]
    changed = (merged[TABLE] != base).any(dim=1).nonzero().flatten().tolist()
    assert changed == token_ids(AutoTokenizer.from_pretrained(tiny), TOKENS)


@pytest.mark.parametrize(
    ("tuner", "parts"),
    [
        ("lora", {"modulesToSave": ["embed_tokens"], "plusRatio": 4}),
        ("lora", {"trainableTokens": TOKENS}),
        pytest.param("dora", {"modulesToSave": ["lm_head"]}, marks=pytest.mark.deep),
        pytest.param("qlora", {"modulesToSave": ["embed_tokens"], "plusRatio": 4}, marks=pytest.mark.deep),
        pytest.param("qlora", {"trainableTokens": TOKENS}, marks=pytest.mark.deep),
    ],
)
def test_a_stopped_run_resumes_exactly(
    tuner: str, parts: dict[str, Any], tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = parts_run(tmp_path / "whole", tiny, tuner, **parts)
    expected = whole.do(train.run)
    run = parts_run(tmp_path / "stopped", tiny, tuner, **parts)
    resumed, report = stop_and_resume(run, tiny, ROWS, 3, monkeypatch)
    assert losses(resumed) == losses(whole)
    assert [each.digest for each in report.artifacts or []] == [each.digest for each in expected.artifacts or []]


@pytest.mark.deep
@pytest.mark.parametrize("tuner", ["dora", "qlora"])
@pytest.mark.parametrize("parts", [{"modulesToSave": ["embed_tokens"]}, {"trainableTokens": TOKENS}], ids="-".join)
def test_other_kinds_of_lora_merge_their_parts_too(
    tuner: str, parts: dict[str, Any], tmp_path: Path, tiny: Path
) -> None:
    base = load_file(tiny / "model.safetensors")[TABLE]
    assert not merged_by(parts_run(tmp_path, tiny, tuner, **parts))[TABLE].equal(base)


@pytest.mark.parametrize(
    ("lora", "why"),
    [
        ({"modulesToSave": ["head"]}, "no module of the model is named 'head'"),
        ({"modulesToSave": ["q_proj"]}, "'q_proj' is a linear layer, which the adapter trains"),
        ({"modulesToSave": ["mlp"]}, "'mlp' is no single module with weights"),
        ({"modulesToSave": ["rotary_emb"]}, "'rotary_emb' is no single module with weights"),
        ({"modulesToSave": ["embed_tokens"], "targetModules": ["embed_tokens"]}, "is also in lora.targetModules"),
    ],
)
def test_modules_that_cannot_be_trained_as_a_whole_are_refused_with_those_that_can(
    lora: dict[str, Any], why: str
) -> None:
    with pytest.raises(RunFailure) as failure:
        LORA.check(model_of("llama"), job(lora=lora), ())
    assert why in failure.value.message
    assert "embed_tokens, input_layernorm, lm_head, norm, post_attention_layernorm" in str(failure.value.hint)


def test_rows_of_an_embedding_that_is_trained_as_a_whole_are_refused() -> None:
    lora = {"modulesToSave": ["lm_head"], "trainableTokens": ["a"]}
    with pytest.raises(RunFailure, match=r"trained as a whole, and lora\.trainableTokens trains single rows"):
        LORA.check(model_of("qwen3"), job(lora=lora), (5,))


def test_a_text_of_several_tokens_is_refused_with_its_tokens(tiny: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    assert token_ids(tokenizer, ["<|im_end|>"]) == [tokenizer.eos_token_id]
    with pytest.raises(RunFailure, match=r"'zzz' is 3 tokens of the model \('z', 'z', 'z'\)"):
        token_ids(tokenizer, ["<|im_end|>", "zzz"])
