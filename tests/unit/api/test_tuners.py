"""The rows of the tuners agree with the spec's fields and with the sizes of adapters."""

from __future__ import annotations

import pytest

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.tuners import TUNER_FACTS, AdaLora, Tuner, tuners_where
from tunesmith_runtime.estimate.adapter_size import ADAPTER_SIZES


@pytest.mark.parametrize("tuner", [tuner for tuner in TUNER_FACTS if tuner != "lora"])
def test_the_block_of_a_tuner_has_its_name_in_the_spec(tuner: Tuner) -> None:
    settings, field = TUNER_FACTS[tuner].settings, FineTuneJobSpec.model_fields.get(tuner)
    assert (field and field.annotation) == (settings and settings | None)


def test_the_tuners_that_adapt_layers_have_a_size() -> None:
    assert set(tuners_where(lambda facts: facts.adapts_layers)) == set(ADAPTER_SIZES)


@pytest.mark.parametrize(("rank", "initial"), [(1, 2), (2, 3), (8, 12)])
def test_ranks_begin_half_as_high_again_as_they_end_unless_the_spec_names_one(rank: int, initial: int) -> None:
    assert AdaLora().initial_rank_for(rank) == initial
    assert AdaLora(initial_rank=5).initial_rank_for(rank) == 5
