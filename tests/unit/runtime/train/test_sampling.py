"""Completions are sampled by a seed, end with the first token that ends an answer, and leave the model as it was."""

from __future__ import annotations

from pathlib import Path

import torch

from tunesmith_runtime.train.sampling import Sampling, sample, until_end


def test_a_completion_ends_with_the_first_of_all_tokens_that_end_an_answer() -> None:
    assert until_end([7, 5, 2, 0], stop_ids=[2, 5]) == [7, 5]
    assert until_end([7, 8], stop_ids=[2, 5]) == [7, 8]


def test_completions_depend_on_the_seed_alone(tiny: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny).train()
    sampling = Sampling(max_tokens=6, stop_ids=[2], pad_token=0)
    state = torch.get_rng_state()
    first = sample(model, [[40, 41, 42], [50]], sampling, seed=7)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(3)
    assert sample(model, [[40, 41, 42], [50]], sampling, seed=7) == first
    assert sample(model, [[40, 41, 42], [50]], sampling, seed=8) != first
    assert all(1 <= len(tokens) <= 6 for tokens in first)
