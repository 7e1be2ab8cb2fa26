"""Terms of the losses of policies: the clipped ratio and the divergence, by their formulas."""

from __future__ import annotations

import math

import pytest
import torch

from tunesmith_api.methods import Clip
from tunesmith_runtime.train.losses.policy_loss import Sampled, clipped_share, divergence, surrogate

CLIP = Clip(low=0.2, high=0.28)


def sampled(ratio: float, advantage: float) -> Sampled:
    log_probs = torch.tensor([[math.log(ratio)]], requires_grad=True)
    return Sampled(log_probs, torch.tensor([[True]]), torch.tensor([advantage]), torch.zeros(1, 1))


@pytest.mark.parametrize(
    ("ratio", "advantage", "counted"),
    [
        (1.1, 1.0, 1.1),
        (1.25, 1.0, 1.25),  # within the higher bound
        (1.5, 1.0, 1.28),
        (0.5, 1.0, 0.5),  # a good token that became less probable is learned in full
        (0.5, -1.0, 0.8),
        (1.5, -1.0, 1.5),
    ],
)
def test_a_ratio_is_clipped_only_where_it_has_moved_too_far_already(
    ratio: float, advantage: float, counted: float
) -> None:
    rows = sampled(ratio, advantage)
    loss = surrogate(rows.log_ratios, rows, CLIP).sum()
    assert float(loss) == pytest.approx(-advantage * counted)
    loss.backward()
    is_clipped = counted != ratio
    assert rows.log_probs.grad is not None
    assert float(rows.log_probs.grad) == pytest.approx(0 if is_clipped else -advantage * ratio)
    assert clipped_share(rows.log_ratios, rows, CLIP).tolist() == [float(is_clipped)]


def test_bounds_are_symmetric_by_default() -> None:
    assert float(surrogate(torch.tensor([[1.0]]), sampled(1.0, 1.0), None)) == pytest.approx(-1.2)
    assert float(surrogate(torch.tensor([[-1.0]]), sampled(1.0, -1.0), None)) == pytest.approx(0.8)


def test_the_divergence_is_0_at_equal_probabilities_and_positive_elsewhere() -> None:
    values = divergence(torch.tensor([-1.0, -1.0, -1.0]), torch.tensor([-1.0, -2.0, -0.5]))
    assert values.tolist() == pytest.approx([0, math.exp(-1) + 1 - 1, math.exp(0.5) - 0.5 - 1])
