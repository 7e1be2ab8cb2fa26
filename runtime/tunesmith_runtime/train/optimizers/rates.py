"""Learning rates of single weights: an optimizer has one for each of its groups, which the schedule changes alike."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torch.optim import Optimizer


def set_rates(optimizer: Optimizer, model: nn.Module, factor: Callable[[str], float]) -> None:
    """Give each weight its learning rate times `factor` of its name. Weights with another rate form groups behind those that
    there are, so that the first group keeps the rate that is logged."""
    factors = {id(weight): factor(name) for name, weight in model.named_parameters()}
    for group in list(optimizer.param_groups):
        by_factor: dict[float, list[nn.Parameter]] = {}
        for weight in group["params"]:
            by_factor.setdefault(factors.get(id(weight), 1.0), []).append(weight)
        group["params"] = by_factor.pop(1.0, [])
        for each, weights in by_factor.items():
            optimizer.add_param_group({**group, "params": weights, "lr": each * group["lr"]})
