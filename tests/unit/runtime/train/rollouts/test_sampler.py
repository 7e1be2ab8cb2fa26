"""Samples of a model: their distribution, their ends, and that each depends on nothing but its own seed and prompt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from tunesmith_runtime.train.rollouts.sampler import Sampling, drawn, sample, uniforms, until_end

PROMPTS = [[5, 6, 7], [8, 9], [10, 11, 12, 13, 14], [15]]
SAMPLING = Sampling(max_tokens=12, stop_ids=[2], pad_token=0)


@pytest.fixture(scope="module")
def model(tiny: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(tiny)


def test_a_completion_depends_on_its_own_seed_and_prompt_alone(model: PreTrainedModel) -> None:
    model.train()
    state = torch.get_rng_state()
    together = sample(model, PROMPTS, SAMPLING, seed=7)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert [sample(model, [prompt], SAMPLING, 7, [row])[0] for row, prompt in enumerate(PROMPTS)] == together
    assert sample(model, PROMPTS, SAMPLING, seed=8) != together
    assert len({tuple(tokens) for tokens in sample(model, PROMPTS[:1] * 8, SAMPLING, seed=7)}) > 1


def test_settings_of_the_model_leave_its_probabilities_as_they_are(model: PreTrainedModel) -> None:
    expected = sample(model, PROMPTS, SAMPLING, seed=7)
    model.generation_config.update(
        repetition_penalty=5.0, no_repeat_ngram_size=1, suppress_tokens=list(range(100, 400)), temperature=0.1
    )
    assert sample(model, PROMPTS, SAMPLING, seed=7) == expected


def test_tokens_are_drawn_with_their_probabilities() -> None:
    logits = torch.tensor([[0.0, 1.0, -torch.inf, 2.0]]).expand(20_000, 4)
    numbers = torch.tensor(uniforms("seed", 20_000), dtype=torch.float64)
    for temperature in (1.0, 2.0):
        counts = drawn(logits, numbers, temperature, 1.0).bincount(minlength=4) / 20_000
        assert counts.tolist() == pytest.approx((logits[0] / temperature).softmax(0).tolist(), abs=0.015)


def test_only_the_most_probable_tokens_are_drawn_that_reach_top_p() -> None:
    logits = torch.tensor([[0.5, 0.1, 0.3, 0.1]]).log().expand(1000, 4)
    numbers = torch.tensor(uniforms("seed", 1000), dtype=torch.float64)
    assert drawn(logits, numbers, 1.0, 0.5).unique().tolist() == [0]
    counts = drawn(logits, numbers, 1.0, 0.7).bincount(minlength=4) / 1000
    assert counts.tolist() == pytest.approx([0.5 / 0.8, 0, 0.3 / 0.8, 0], abs=0.05)


def test_a_number_next_to_1_draws_a_token_that_can_be() -> None:
    logits = torch.tensor([[1.0, -torch.inf]])
    assert drawn(logits, torch.tensor([1 - 2**-53], dtype=torch.float64), 1.0, 1.0).tolist() == [0]


def test_a_completion_ends_with_the_first_of_all_tokens_that_end_an_answer(model: PreTrainedModel) -> None:
    assert until_end([7, 5, 2, 0], stop_ids=[2, 5]) == [7, 5]
    assert until_end([7, 8], stop_ids=[2, 5]) == [7, 8]
    (free,) = sample(model, [[5]], SAMPLING, seed=0)
    several = replace(SAMPLING, stop_ids=[2, free[3]])
    assert sample(model, [[5]], several, seed=0) == [free[: free.index(free[3]) + 1]]


def test_the_most_probable_tokens_are_chosen_at_temperature_0(model: PreTrainedModel) -> None:
    greedy = replace(SAMPLING, temperature=0.0, stop_ids=[])
    (tokens,) = sample(model, [[5, 6]], greedy, seed=0)
    with torch.no_grad():
        logits = model.eval()(torch.tensor([[5, 6, *tokens]])).logits[0]
    assert tokens == logits[1:-1].argmax(dim=1).tolist()
