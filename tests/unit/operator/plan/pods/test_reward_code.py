"""The container that runs the code of a reward has what it needs and nothing else."""

from __future__ import annotations

import pytest

from tunesmith_api.rewards import RewardCode
from tunesmith_operator.plan.pods.reward_code import CODE_MOUNT, RewardContainer, reward_container, reward_volumes

MI = 1 << 20


def container(**settings: str) -> RewardContainer:
    code = RewardCode.model_validate({"configMap": {"name": "tunesmith-rewards", "key": "short.py"}, **settings})
    return RewardContainer(code, "registry/runtime:1")


@pytest.mark.parametrize(("memory", "left"), [("1Gi", 960 * MI), ("100Mi", 64 * MI), ("65Mi", 64 * MI)])
def test_the_code_gets_the_memory_of_the_container_but_what_python_needs(memory: str, left: int) -> None:
    args = reward_container(container(memory=memory), {}, {})["args"]
    assert args[args.index("--memory") + 1] == str(left)


def test_a_call_has_the_time_that_the_job_gives() -> None:
    args = reward_container(container(timeout="1m30s"), {}, {})["args"]
    assert args[args.index("--seconds") + 1] == "90"


def test_it_mounts_the_code_its_socket_and_its_temporary_files_alone() -> None:
    made = reward_container(container(), {"CUDA_VISIBLE_DEVICES": ""}, {"securityContext": {"runAsNonRoot": True}})
    assert made["env"] == [{"name": "CUDA_VISIBLE_DEVICES", "value": ""}]
    assert made["securityContext"] == {"runAsNonRoot": True}
    assert CODE_MOUNT in made["volumeMounts"]
    assert [mount["name"] for mount in made["volumeMounts"]] == [
        volume["name"] for volume in reward_volumes(container(), runs=True)
    ]


def test_a_pod_that_only_identifies_the_run_has_the_code_alone() -> None:
    (volume,) = reward_volumes(container(), runs=False)
    assert volume["configMap"]["name"] == "tunesmith-rewards"
