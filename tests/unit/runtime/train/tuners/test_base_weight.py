"""A quantized layer gives its weight and computes as before."""

from __future__ import annotations

import pytest
import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt

from tunesmith_runtime.train.tuners.base_weight import base_weight


@pytest.mark.parametrize(
    ("layer", "error"),
    [(Linear8bitLt(64, 32, bias=False, has_fp16_weights=False), 0.01), (Linear4bit(64, 32, bias=False), 0.1)],
)
def test_a_layer_computes_the_same_after_its_weight_was_read(layer: torch.nn.Linear, error: float) -> None:
    torch.manual_seed(0)
    weight = torch.randn(32, 64) / 8
    layer.load_state_dict({"weight": weight})
    quantized = layer.to("cpu")
    inputs = torch.randn(3, 64)
    with torch.no_grad():
        before = quantized(inputs)
        assert (base_weight(quantized).float() - weight).abs().max() < error
        assert torch.equal(quantized(inputs), before)


def test_a_weight_that_is_not_quantized_is_given_as_it_is() -> None:
    layer = torch.nn.Linear(4, 4)
    assert base_weight(layer) is layer.weight
