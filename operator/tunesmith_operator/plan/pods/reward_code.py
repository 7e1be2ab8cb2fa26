"""The container that runs the code of a reward: a sidecar of the training, without credentials, devices and its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tunesmith_api.base import parse_duration
from tunesmith_api.quantities import bytes_of
from tunesmith_api.rewards import RewardCode
from tunesmith_api.run import REWARD_CODE_FILE, REWARD_SOCKET
from tunesmith_operator.plan.types import Raw

REWARD_CODE, SOCKETS, TEMPORARY = "reward-code", "reward-sockets", "reward-tmp"
"""Names of the container and of the volume of the code; of the volumes of its socket and of its temporary files."""
OVERHEAD = 64 << 20
"""Bytes of the container which the code cannot use."""


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


CODE_MOUNT: Raw = {"name": REWARD_CODE, "mountPath": _folder(REWARD_CODE_FILE), "readOnly": True}
SOCKET_MOUNT: Raw = {"name": SOCKETS, "mountPath": _folder(REWARD_SOCKET), "readOnly": True}


@dataclass(frozen=True)
class RewardContainer:
    """The code of a reward, and the image that runs it."""

    code: RewardCode
    image: str


def reward_container(reward: RewardContainer, env: Mapping[str, str], shared: Raw) -> Raw:
    """Return the container, which takes the network from itself. `shared`: fields that all containers of the pod have."""
    memory = bytes_of(reward.code.memory)
    return {
        **shared,
        "name": REWARD_CODE,
        "image": reward.image,
        "restartPolicy": "Always",
        "command": ["python", "-m", "tunesmith_runtime.rewardcode"],
        "args": [
            "--code", REWARD_CODE_FILE,
            "--socket", REWARD_SOCKET,
            "--seconds", f"{parse_duration(reward.code.timeout):g}",
            "--memory", str(max(memory - OVERHEAD, OVERHEAD)),
        ],
        "env": [{"name": name, "value": value} for name, value in env.items()],
        "resources": {
            "requests": {"cpu": "100m", "memory": reward.code.memory},
            "limits": {"memory": reward.code.memory},
        },
        "volumeMounts": [
            CODE_MOUNT,
            {"name": SOCKETS, "mountPath": _folder(REWARD_SOCKET)},
            {"name": TEMPORARY, "mountPath": "/tmp"},
        ],
    }  # fmt: skip


def reward_volumes(reward: RewardContainer, runs: bool) -> list[Raw]:
    """Return the volume of the code, and those of its socket and of its temporary files if it runs in the pod."""
    source = reward.code.config_map
    items = [{"key": source.key, "path": REWARD_CODE_FILE.rpartition("/")[2]}]
    code = {"name": REWARD_CODE, "configMap": {"name": source.name, "items": items}}
    sockets = {"name": SOCKETS, "emptyDir": {"sizeLimit": "16Mi"}}
    return [code, sockets, {"name": TEMPORARY, "emptyDir": {"sizeLimit": "256Mi"}}] if runs else [code]
