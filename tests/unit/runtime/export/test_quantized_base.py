"""The merged model is compared with the quantized base and its adapter: the bound is what quantization explains."""

from __future__ import annotations

import pytest
import torch

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.export.quantized_base import Trained, check_distance

BASE = torch.zeros(4, 8)
QUANTIZED = BASE + 0.1


def check(learned: float, merged: float) -> None:
    """Check a training that moved logits by `learned`, and a merge that moved those of the base by `merged`."""
    check_distance(Trained([QUANTIZED + learned], [QUANTIZED]), [BASE], [BASE + merged])


@pytest.mark.parametrize("learned", [0.01, 1.0])
def test_a_merge_of_what_was_learned_passes(learned: float) -> None:
    check(learned, merged=learned)


@pytest.mark.parametrize(("learned", "merged"), [(1.0, -1.0), (1.0, 3.0), (0.01, 1.0), (1.0, float("nan"))])
def test_a_merged_model_beyond_the_base_and_beyond_quantization_is_refused(learned: float, merged: float) -> None:
    with pytest.raises(RunFailure) as refused:
        check(learned, merged)
    assert refused.value.failure is FailureClass.MERGE_MISMATCH
