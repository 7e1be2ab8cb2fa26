"""The rows of the training methods agree with the spec's fields and with the runtime's methods."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.method_facts import METHOD_FACTS, OTHER_LOSS_METHODS, SAMPLING_METHODS, Method
from tunesmith_runtime.data.records import PlainText, Prompt
from tunesmith_runtime.train.methods import METHODS


def job(**fields: Any) -> FineTuneJobSpec:
    """A spec with further fields."""
    return FineTuneJobSpec.model_validate(
        {"model": {"uri": "s3://models/base"}, "datasets": [{"uri": "s3://data/train.jsonl"}], **fields}
    )


@pytest.mark.parametrize("method", METHOD_FACTS)
def test_the_block_of_a_method_has_its_name_in_the_spec(method: Method) -> None:
    settings, field = METHOD_FACTS[method].settings, FineTuneJobSpec.model_fields.get(method)
    assert (field and field.annotation) == (settings and settings | None)


@pytest.mark.parametrize("method", METHOD_FACTS)
def test_the_facts_of_a_method_agree_with_the_records_it_learns_from(method: Method) -> None:
    facts, implemented = METHOD_FACTS[method], METHODS[method]
    assert facts.is_pairwise == (implemented.answers == 2)
    assert facts.samples == (Prompt in implemented.learns_from)
    assert facts.is_plain_text == (implemented.learns_from == {PlainText})


def test_a_sampled_completion_has_a_loss_of_its_own() -> None:
    assert set(SAMPLING_METHODS) < set(OTHER_LOSS_METHODS)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"method": "sft"}, False),
        ({"method": "dpo"}, True),
        ({"method": "dpo", "dpo": {"referenceFree": True}}, False),
        ({"method": "kto"}, True),
        ({"method": "grpo"}, False),
        ({"method": "grpo", "grpo": {"beta": 0.1}}, True),
        ({"method": "rloo"}, True),
        ({"method": "rloo", "rloo": {"beta": 0}}, False),
        ({"method": "ppo"}, True),
        ({"method": "ppo", "ppo": {"klCoefficient": 0}}, False),
    ],
)
def test_a_method_has_a_reference_unless_its_settings_give_it_no_weight(fields: dict[str, Any], expected: bool) -> None:
    spec = job(**fields)
    assert METHOD_FACTS[spec.method].has_reference(spec) is expected
