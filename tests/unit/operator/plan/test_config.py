"""The operator's configuration file."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from tunesmith_api.pods import Accelerator
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
        {**SMALLEST, "accelerators": {"tpu": {"image": "r:tpu"}}},
        {**SMALLEST, "accelerators": {"ascend": {"resource": "Ascend910"}}},
        {**SMALLEST, "accelerators": {"nvidia": {"env": {"NCCL-DEBUG": "INFO"}}}},
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


ASCEND = {"image": "r:ascend", "engines": {"vllm": "v:ascend"}, "resource": "huawei.com/Ascend310P", "groups": [1001]}
MIXED = {
    **SMALLEST,
    "images": {"runtime": "r:1", "engines": {"lmdeploy": "l:1", "vllm": "v:1"}},
    "accelerators": {"ascend": ASCEND, "nvidia": {"groups": []}},
}


def test_pods_with_devices_of_a_vendor_have_its_images_and_all_others_the_usual_ones():
    config = OperatorConfig.model_validate(MIXED)
    ascend, nvidia = config.images_on(Accelerator.ASCEND), config.images_on(Accelerator.NVIDIA)
    assert (ascend.runtime, ascend.engines.lmdeploy, ascend.engines.vllm) == ("r:ascend", "l:1", "v:ascend")
    assert nvidia == config.images_on(Accelerator.CPU) == config.images


def test_the_resource_and_the_groups_of_devices_are_those_of_the_installation():
    config = OperatorConfig.model_validate(MIXED)
    ascend, nvidia = config.accelerator(Accelerator.ASCEND), config.accelerator(Accelerator.NVIDIA)
    assert (ascend.amounts(2), ascend.groups) == ({"huawei.com/Ascend310P": "2"}, (1001,))
    assert (nvidia.amounts(2), nvidia.groups) == ({"nvidia.com/gpu": "2"}, ())
    assert OperatorConfig.model_validate(SMALLEST).accelerator(Accelerator.ASCEND).groups == (1000,)
