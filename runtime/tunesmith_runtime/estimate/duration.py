"""Hours of a training on known accelerators: computation, memory traffic, kernel launches, and the optimizer.

The four constants are fitted to published throughputs of models without torch.compile on A100, H100 and L40S
(tests/unit/runtime/estimate/test_published_speeds.py).
"""

from __future__ import annotations

from tunesmith_api.tuners import Tuner
from tunesmith_runtime.estimate.device_setup import Setup
from tunesmith_runtime.estimate.devices import Device
from tunesmith_runtime.estimate.memory import layer_bytes

FORWARD = 2
"""Operations per parameter and token of a forward pass (Kaplan et al., 2020)."""
UTILIZATION = 0.6
"""Share of a device's teraflops that its matrix products reach."""
TRAFFIC = 10
"""Bytes that a step reads and writes for each byte of activations that it keeps: elementwise operations are not fused."""
LAUNCH_SECONDS = 3e-3
"""Time that Python takes to launch the kernels of one decoder layer, forward and backward: the minimum for a micro
batch."""
OPTIMIZER_TRAFFIC = 80
"""Bytes that clipping and AdamW read and write for each trained parameter."""
RECOMPUTATION = 4 / 3
"""Factor of traffic and launches with gradient checkpointing: a second forward pass beside one forward and one backward pass."""


def operations_per_token(setup: Setup, length: float) -> float:
    """Return the floating point operations of training on one token of a row with `length` tokens.

    The backward pass computes the gradients of the activations, and those of the weights that are trained.
    """
    sizes = setup.architecture
    weights = sizes.active_parameters if setup.tuner is Tuner.FULL else setup.trained
    passes = 2 + setup.checkpointing + setup.reference_passes
    attention = FORWARD * sizes.layers * sizes.query_size * length  # each token attends to half of the row on average
    further = FORWARD * sum(model.active_parameters for model in (setup.teacher, setup.reward_model) if model)
    return FORWARD * (passes * sizes.active_parameters + weights) + attention * (passes + 1) + further


def seconds_per_token(setup: Setup, length: float, device: Device) -> float:
    """Return the time that a `device` needs for a token, of a micro batch with rows of `length` tokens on average."""
    layers = setup.architecture.layers
    traffic = TRAFFIC * layers * layer_bytes(setup) / _bandwidth(device)
    launches = LAUNCH_SECONDS * layers / (setup.batch.rows * length)
    computation = operations_per_token(setup, length) / (device.teraflops * 1e12 * UTILIZATION)
    return computation + (traffic + launches) * (RECOMPUTATION if setup.checkpointing else 1)


def seconds(setup: Setup, tokens: int, length: float, steps: int, device: Device) -> float:
    """Return the seconds of training on `tokens` tokens in `steps` steps, with every device of the setup being a `device`.

    Loading the model, checkpoints and communication between devices are not part of it.
    """
    update = OPTIMIZER_TRAFFIC * setup.trained / _bandwidth(device)
    busy = setup.devices * (1 - setup.idle)
    return tokens * seconds_per_token(setup, length, device) / busy + steps * update


def _bandwidth(device: Device) -> float:
    """Bytes per second of the device's memory."""
    return device.gigabytes_per_second * 1e9


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
