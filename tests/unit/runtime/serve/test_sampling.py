from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_runtime.serve.generation.sampling import GREEDY_BELOW, Sampling, candidates, choose, generator_for

LOGITS = st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=40).map(torch.tensor)
SAMPLINGS = st.builds(
    Sampling,
    temperature=st.floats(GREEDY_BELOW, 2),
    top_p=st.floats(0.01, 1),
    top_k=st.integers(0, 50),
    seed=st.integers(0, 2**31),
)


def draw(logits: torch.Tensor, sampling: Sampling, seen: Counter[int] | None = None) -> int:
    return choose(logits, sampling, seen or Counter(), generator_for(sampling)).token


@given(LOGITS)
def test_temperature_zero_takes_the_likeliest(logits: torch.Tensor) -> None:
    assert logits[draw(logits, Sampling(temperature=0))] == logits.max()


@given(LOGITS, SAMPLINGS)
def test_the_same_seed_draws_the_same_token(logits: torch.Tensor, sampling: Sampling) -> None:
    assert draw(logits, sampling) == draw(logits, sampling)


@given(LOGITS, SAMPLINGS)
def test_top_p_keeps_the_smallest_set_that_reaches_it(logits: torch.Tensor, sampling: Sampling) -> None:
    tokens, probabilities = candidates(logits, sampling)
    assert len(tokens) >= 1
    if sampling.top_p < 1:
        assert probabilities[:-1].sum() < sampling.top_p + 1e-5
    if sampling.top_k:
        assert len(tokens) <= sampling.top_k
    left_out = torch.ones(len(logits), dtype=torch.bool)
    left_out[tokens] = False
    if left_out.any():
        assert logits[left_out].max() <= logits[tokens].min()


def test_the_smallest_top_p_takes_the_likeliest() -> None:
    assert draw(torch.tensor([0.0, 2.0, 1.0]), Sampling(top_p=5e-324, seed=1)) == 1


def test_draws_follow_the_probabilities() -> None:
    logits = torch.tensor([0.5, 0.3, 0.2]).log()
    generator = torch.Generator().manual_seed(0)
    drawn = Counter(choose(logits, Sampling(), Counter(), generator).token for _ in range(4000))
    assert [drawn[token] / 4000 for token in range(3)] == pytest.approx([0.5, 0.3, 0.2], abs=0.04)


def test_penalties_and_bias_move_the_choice() -> None:
    logits = torch.tensor([1.0, 0.9, 0.0])
    assert draw(logits, Sampling(temperature=0)) == 0
    assert draw(logits, Sampling(temperature=0, presence_penalty=0.5), Counter({0: 1})) == 1
    assert draw(logits, Sampling(temperature=0, frequency_penalty=0.06), Counter({0: 1})) == 0
    assert draw(logits, Sampling(temperature=0, frequency_penalty=0.06), Counter({0: 2})) == 1
    assert draw(logits, Sampling(temperature=0, logit_bias={2: 5.0})) == 2
    assert logits.tolist() == pytest.approx([1.0, 0.9, 0.0])


def test_log_probabilities_are_the_models_own() -> None:
    logits = torch.tensor([0.5, 0.3, 0.2]).log()
    choice = choose(logits, Sampling(temperature=0, logprobs=2), Counter(), torch.Generator())
    assert choice.logprob == pytest.approx(math.log(0.5))
    assert [token for token, _ in choice.top] == [0, 1]
    assert [math.exp(value) for _, value in choice.top] == pytest.approx([0.5, 0.3])


def test_a_tiny_temperature_takes_the_likeliest() -> None:
    assert draw(torch.tensor([1.0, 3.0, -2.0]), Sampling(temperature=1e-40, seed=1)) == 1


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_numbers_choose_no_token(temperature: float) -> None:
    with pytest.raises(ValueError, match="not numbers"):
        draw(torch.tensor([0.0, math.nan]), Sampling(temperature=temperature))


@pytest.mark.parametrize("logits", [[0.0, math.inf], [-math.inf, -math.inf], [math.nan, -math.inf]])
def test_logits_without_a_largest_number_choose_no_token(logits: list[float]) -> None:
    for temperature in (0.0, 1.0):
        with pytest.raises(ValueError, match="not numbers"):
            draw(torch.tensor(logits), Sampling(temperature=temperature))


def test_a_token_of_probability_zero_has_a_finite_log_probability() -> None:
    choice = choose(torch.tensor([0.0, -math.inf]), Sampling(logprobs=2), Counter(), torch.Generator())
    assert choice.top == ((0, 0.0), (1, -9999.0))
