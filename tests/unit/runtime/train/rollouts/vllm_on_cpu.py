"""vLLM itself, by its build for CPUs. `test_vllm_sampler.py` runs each test in a process of an environment that has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from tests import tinymodel
from tests.unit.runtime.train.methods.samples import FULL, history, sampling_run
from tunesmith_api.run import Outcome
from tunesmith_runtime import train
from tunesmith_runtime.train.models.merged_weights import merged_weights
from tunesmith_runtime.train.rollouts import vllm_sampler
from tunesmith_runtime.train.rollouts.sampler import Sampling, sample
from tunesmith_runtime.train.rollouts.vllm_sampler import VllmSampler, engine_arguments

PROMPTS = [[5, 6, 7], [8, 9], [10, 11, 12, 13, 14], [15]]
ROWS = [{"input_ids": prompt, "index": index} for index, prompt in enumerate(PROMPTS)]
EAGER = {"enforce_eager": True}
"""Compiling takes minutes on a CPU."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model with heads of 64 numbers, which vLLM's kernels for CPUs need."""
    tokenizer = tinymodel.make_tokenizer()
    config = Qwen3Config(
        vocab_size=512, hidden_size=128, intermediate_size=192, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=64, max_position_embeddings=256, tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None, initializer_range=0.1,
    )  # fmt: skip
    torch.manual_seed(0)
    Qwen3ForCausalLM(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_it_samples_with_the_weights_of_the_step(model: Path) -> None:
    sampler = VllmSampler(engine_arguments(model, 64, 0.3, bf16=False, trusted=False) | EAGER)
    trained: Any = AutoModelForCausalLM.from_pretrained(model)
    greedy = Sampling(max_tokens=12, stop_ids=[2], pad_token=0, temperature=0.0)
    before = sample(trained, PROMPTS, greedy, 7)
    assert sampler.sample_rows(ROWS, greedy, 7) == before
    adapted = get_peft_model(trained, LoraConfig(r=4, target_modules="all-linear"))
    for weight in adapted.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.2)
    sampler.load(merged_weights(adapted))
    after = sample(adapted, PROMPTS, greedy, 7)
    assert after != before
    assert sampler.sample_rows(ROWS, greedy, 7) == after
    warm = Sampling(max_tokens=12, stop_ids=[2], pad_token=0)
    assert sampler.sample_rows(ROWS[::-1], warm, 7)[::-1] == sampler.sample_rows(ROWS, warm, 7)
    assert sampler.sample_rows(ROWS, warm, 8) != sampler.sample_rows(ROWS, warm, 7)


def test_grpo_learns_from_its_samples(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_sampler, "engine_arguments", lambda *arguments: engine_arguments(*arguments) | EAGER)
    training = {"epochs": 1, "learningRate": 2e-3}
    run = sampling_run(tmp_path / "run", model, training, settings={"engine": "vllm"}, **FULL)
    assert run.do(train.run).outcome is Outcome.SUCCEEDED
    rewards = history(run, "reward")
    assert len(rewards) == 64 * 8 // 32
    assert sum(rewards[-4:]) / 4 > sum(rewards[:4]) / 4 + 0.3
    assert all(0 < share < 1 for share in history(run, "sampling_share"))
