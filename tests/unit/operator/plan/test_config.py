"""The operator's configuration file."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from tunesmith_operator.plan.config import OperatorConfig

SMALLEST = {"images": {"runtime": "r:1"}, "store": {"uri": "s3://bucket"}}


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
        {**SMALLEST, "cache": {"hostPath": "/cache", "claim": "models"}},
        {**SMALLEST, "cache": {"hostPath": "/"}},
        {**SMALLEST, "cache": {"hostPath": "/var/../etc"}},
        {**SMALLEST, "cache": {"claim": "models", "maxBytes": "many"}},
        {**SMALLEST, "images": {"runtime": "r:1", "pullPolicy": "Sometimes"}},
    ],
)
def test_a_misspelt_or_impossible_setting_is_an_error(broken):
    with pytest.raises(ValidationError):
        OperatorConfig.model_validate(broken)


@pytest.mark.parametrize(
    ("store", "expected"),
    [
        ({"uri": "my-bucket"}, '"my-bucket" is not a place to write to: write s3://BUCKET/FOLDER'),
        ({"uri": "s3a://bucket/x"}, "write s3://bucket/x"),
        ({"uri": "s3://bucket/../x"}, "has a folder named . or .."),
        ({"uri": "s3://key:word@bucket"}, "the value holds credentials"),
        (
            {"uri": "s3://bucket", "endpoint": "minio:9000"},
            '"minio:9000" lacks http:// or https://: write https://minio:9000',
        ),
    ],
)
def test_the_store_follows_the_grammar_of_a_spec_with_the_same_messages(store, expected):
    with pytest.raises(ValidationError) as refusal:
        OperatorConfig.model_validate({**SMALLEST, "store": store})
    [error] = refusal.value.errors()
    assert expected in error["msg"]
