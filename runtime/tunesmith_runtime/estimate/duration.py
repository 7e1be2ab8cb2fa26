"""Hours of a training on known accelerators, by its floating point operations."""

from __future__ import annotations

from tunesmith_api.training import Tuner
from tunesmith_runtime.estimate.devices import UTILIZATION, Device
from tunesmith_runtime.estimate.memory import Setup

FORWARD = 2
"""Operations per parameter and token of a forward pass (Kaplan et al., 2020)."""


def operations_per_token(setup: Setup, length: float) -> float:
    """Return the floating point operations of training on one token of a row with `length` tokens.

    The backward pass computes the gradients of the activations, and those of the weights that are trained.
    """
    sizes = setup.architecture
    weights = sizes.active_parameters if setup.tuner is Tuner.FULL else setup.trained
    passes = 3 if setup.checkpointing else 2
    attention = FORWARD * sizes.layers * sizes.query_size * length  # each token attends to half of the row on average
    return FORWARD * (passes * sizes.active_parameters + weights) + attention * (passes + 1)


def seconds(setup: Setup, tokens: int, length: float, device: Device) -> float:
    """Return the seconds of training on `tokens` tokens, with every device of the setup being a `device`."""
    speed = device.teraflops * 1e12 * UTILIZATION * setup.devices
    return operations_per_token(setup, length) * tokens / speed


def in_words(duration: float) -> str:
    """Return seconds in words: 45 s, 25 min, 3 h 10 min, 2 d 4 h."""
    if duration < 90:
        return f"{max(1, round(duration))} s"
    minutes = round(duration / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, rest = divmod(round(minutes / 10) * 10, 60)
    if hours < 48:
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    days, left = divmod(round(minutes / 60), 24)
    return f"{days} d {left} h" if left else f"{days} d"
