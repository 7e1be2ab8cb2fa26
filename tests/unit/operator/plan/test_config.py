from __future__ import annotations

import pytest
from pydantic import ValidationError

from tunesmith_operator.plan.config import OperatorConfig

SMALLEST = {"images": {"runtime": "r:1"}, "store": {"uri": "s3://b"}}


def test_the_smallest_file_is_an_image_and_a_store():
    config = OperatorConfig.model_validate(SMALLEST)
    assert config.namespaces == ()
    assert config.allow_trust_remote_code is False
    assert config.leader_election.enabled


@pytest.mark.parametrize(
    "broken",
    [
        {**SMALLEST, "worker": 3},
        {**SMALLEST, "images": {"runtime": "r:1", "engines": {"tgi": "x"}}},
        {"images": SMALLEST["images"]},
        {**SMALLEST, "client": {"qps": 0}},
        {**SMALLEST, "images": {"runtime": "r:1", "pullPolicy": "Sometimes"}},
    ],
)
def test_a_misspelt_or_impossible_setting_is_an_error(broken):
    with pytest.raises(ValidationError):
        OperatorConfig.model_validate(broken)
