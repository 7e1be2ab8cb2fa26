"""Specs that follow the hints of failure classes: a class, a kind, and the specs with each of the proposals."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import Any

from tunesmith_api.failures import EVAL, SERVE, TUNE, FailureClass

TUNED: dict[str, Any] = {
    "model": {"uri": "s3://models/base"},
    "datasets": [{"uri": "s3://data/train.jsonl"}],
    "training": {"microBatchSize": 8, "learningRate": 0.001, "epochs": 1},
    "resources": {"accelerator": "nvidia", "count": 2, "memory": "4Gi"},
}
EVALUATED: dict[str, Any] = {
    "model": {"uri": "s3://models/base"},
    "benchmarks": [{"name": "words", "dataset": {"uri": "s3://data/test.jsonl"}}],
    "resources": {"accelerator": "nvidia", "count": 2, "memory": "4Gi"},
}
SERVED: dict[str, Any] = {
    "model": {"uri": "s3://models/base"},
    "maxModelLength": 4096,
    "resources": {"accelerator": "nvidia", "count": 2, "memory": "4Gi"},
}
JUDGE = {"url": "https://judge.example/v1", "model": "m", "rubric": "{completion}"}
BEFORE = {TUNE: TUNED, EVAL: EVALUATED, SERVE: SERVED}


def fields_in(hint: str) -> list[str]:
    """The fields of a spec that a hint names, such as spec.datasets[].uri."""
    return [path.rstrip(".") for path in re.findall(r"(?<![\w.])spec(?:\.\w+(?:\[\])?)+", hint)]


@dataclass(frozen=True)
class Fix:
    """The proposals of a hint, each as changes to a spec that has met the failure."""

    class_: FailureClass
    kind: str
    changes: tuple[dict[str, Any], ...]

    @property
    def after(self) -> list[dict[str, Any]]:
        """The specs that follow the hint, a spec for each proposal."""
        return [changed(BEFORE[self.kind], change) for change in self.changes]


def changed(spec: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """`spec` with the values of `change` at its dotted paths; None removes a field."""
    made = copy.deepcopy(spec)
    for path, value in change.items():
        *parents, leaf = path.split(".")
        below: Any = made
        for part in parents:
            below = below[int(part)] if isinstance(below, list) else below.setdefault(part, {})
        if value is None:
            below.pop(leaf, None)
        else:
            below[leaf] = value
    return made


C = FailureClass
MEMORY: tuple[dict[str, Any], ...] = ({"resources.memory": "8Gi"},)
SMALLER: tuple[dict[str, Any], ...] = (
    {"training.microBatchSize": 4},
    {"training.gradientCheckpointing": True},
)
NODES: tuple[dict[str, Any], ...] = ({"pod.nodeSelector": {"pool": "large"}},)
FOLLOWED: dict[str, Fix] = {
    f"{fix.class_} of {fix.kind}": fix
    for fix in (
        Fix(C.OOM_KILLED, TUNE, (*MEMORY, *SMALLER)),
        Fix(C.OOM_KILLED, SERVE, (*MEMORY, {"maxModelLength": 2048})),
        Fix(C.DEVICE_OUT_OF_MEMORY, TUNE, (*SMALLER, *NODES)),
        Fix(C.DEVICE_OUT_OF_MEMORY, EVAL, ({"resources.count": 4}, *NODES)),
        Fix(C.DEVICE_OUT_OF_MEMORY, SERVE, ({"resources.count": 4}, {"maxModelLength": 2048}, *NODES)),
        Fix(
            C.WILL_NOT_FIT,
            TUNE,
            (
                {"training.microBatchSize": 1, "training.gradientCheckpointing": True},
                {"pod.nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-H200"}, "resources.deviceMemory": "140Gi"},
                {"fit": "Warn"},
            ),
        ),
        Fix(C.BAD_ROW, TUNE, ({"datasets.0.format": "messages"},)),
        Fix(C.BAD_ROW, EVAL, ({"benchmarks.0.dataset.type": "multipleChoice"},)),
        Fix(C.EMPTY_DATASET, TUNE, ({"training.maxLength": 4096}, {"training.truncation": "truncate"})),
        Fix(C.EMPTY_DATASET, EVAL, ({"benchmarks.0.dataset.uri": "s3://data/other.jsonl"},)),
        Fix(
            C.DATASET_NOT_FOUND,
            TUNE,
            ({"datasets.0.uri": "s3://data/other.jsonl"}, {"validation.uri": "s3://data/v.jsonl"}),
        ),
        Fix(C.DATASET_NOT_FOUND, EVAL, ({"benchmarks.0.dataset.uri": "s3://data/other.jsonl"},)),
        Fix(
            C.CHAT_TEMPLATE_MISSING,
            TUNE,
            ({"datasets.0.format": "promptCompletion"}, {"model.uri": "s3://models/other"}),
        ),
        Fix(C.MERGE_MISMATCH, TUNE, ({"export.merge": False},)),
        Fix(C.RELOAD_MISMATCH, TUNE, ({"tuner": "lora"}, {"tuner": "full"})),
        Fix(
            C.JUDGE_FAILED,
            TUNE,
            tuple(
                {"method": "grpo", "rewards": [{"name": "a", "type": "judge", "judge": JUDGE | change}]}
                for change in ({"url": "https://judge-2.example/v1"}, {"timeout": "5m"}, {"concurrency": 1})
            ),
        ),
        Fix(
            C.REWARD_CODE_FAILED,
            TUNE,
            (
                {
                    "method": "grpo",
                    "rewards": [
                        {"name": "a", "type": "code", "code": {"configMap": {"name": "rewards", "key": "r.py"}}}
                    ],
                },
            ),
        ),
        Fix(C.DIVERGED, TUNE, ({"training.learningRate": 0.0001}, {"training.warmupRatio": 0.1})),
        Fix(
            C.NOTHING_LEARNED,
            TUNE,
            ({"training.learningRate": 0.01}, {"training.epochs": 3, "training.maxSteps": 100}),
        ),
    )
}
