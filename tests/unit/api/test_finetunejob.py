"""Defaults of a FineTuneJob that the runtime reads from the API."""

from __future__ import annotations

import re

import pytest

from tunesmith_api.compatibility import refusals
from tunesmith_api.training import ModelPart, Training
from tunesmith_api.tuners import TUNER_FACTS, Tuner


@pytest.mark.parametrize("tuner", Tuner)
def test_every_tuner_of_this_version_has_a_default_learning_rate_that_the_reference_shows(tuner: Tuner) -> None:
    spec = {"method": "sft", "tuner": str(tuner), "resources": {"accelerator": "cpu"}}
    assert (tuner in TUNER_FACTS) == (not refusals("FineTuneJob", spec))
    if tuner in TUNER_FACTS:
        by_tuner, _, _ = str(Training.model_fields["learning_rate"].description).partition(";")
        rates = dict(re.findall(r"([\d.]+) with tuner ((?:\w+(?:, | or )?)+)", by_tuner))
        [rate] = [rate for rate, names in rates.items() if tuner in re.split(", | or ", names)]
        assert float(rate) == TUNER_FACTS[tuner].learning_rate


@pytest.mark.parametrize(
    ("freeze", "frozen"),
    [
        (None, {"vision", "aligner"}),
        (["embeddings"], {"vision", "aligner"}),
        (["vision"], {"vision"}),
        (["language", "aligner"], {"language", "aligner"}),
        (["vision", "head"], {"vision"}),
        (["none"], set()),
    ],
)
def test_a_list_with_parts_names_all_that_are_frozen(freeze: list[str] | None, frozen: set[str]) -> None:
    assert Training(freeze=freeze).frozen_parts == {ModelPart(part) for part in frozen}
