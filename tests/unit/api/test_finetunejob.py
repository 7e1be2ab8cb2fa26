"""Defaults of a FineTuneJob that the runtime reads from the API."""

from __future__ import annotations

import pytest

from tunesmith_api.compatibility import refusals
from tunesmith_api.training import LEARNING_RATES, Training, Tuner


@pytest.mark.parametrize("tuner", Tuner)
def test_every_tuner_of_this_version_has_a_default_learning_rate_that_the_reference_shows(tuner: Tuner) -> None:
    spec = {"method": "sft", "tuner": str(tuner), "resources": {"accelerator": "cpu"}}
    assert (tuner in LEARNING_RATES) == (not refusals("FineTuneJob", spec))
    if tuner in LEARNING_RATES:
        shown, _, _ = str(Training.model_fields["learning_rate"].description).partition(f" with tuner {tuner}")
        assert float(shown.split()[-1]) == LEARNING_RATES[tuner]
