"""The spec hash: equal for specs that must give equal results, so that finished work is found and adopted.

A spec is identified by what its author set. The API server writes defaults into every stored spec, so a field with its
default counts as not set, and a new optional field leaves the hashes of existing specs alone. Releases up to 0.2.0 hashed
the defaults of the fields that they had; `HASHED_DEFAULTS` names these fields, and nothing is ever added to it.
A default, once released, does not change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic_core import to_jsonable_python

from tunesmith_api.base import ApiModel, api_type_in
from tunesmith_api.evaljob import EvalJobSpec
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.inferenceservice import InferenceServiceSpec

SPECS: dict[str, type[ApiModel]] = {
    "FineTuneJob": FineTuneJobSpec,
    "EvalJob": EvalJobSpec,
    "InferenceService": InferenceServiceSpec,
}
"""Kind -> the type of its spec."""

IRRELEVANT = frozenset(
    {
        "suspend", "queueName", "retries", "deadline", "pendingDeadline", "ttlAfterFinished",
        "pod", "resources", "checkpoint", "output", "storage", "parallelism.near", "until", "fit", "samples", "tracking",
        "rewards[].judge.apiKeySecret", "rewards[].judge.timeout", "rewards[].judge.retries", "rewards[].judge.concurrency",
        "rewards[].code.timeout", "rewards[].code.memory", "grpo.gpuMemoryShare", "rloo.gpuMemoryShare",
    }
)  # fmt: skip
"""Paths below spec that decide where, when and how often a run takes place, but not its result."""

HASHED_DEFAULTS: Mapping[str, frozenset[str]] = {
    "FineTuneJob": frozenset(
        {
            "model.trustRemoteCode", "datasets[].format", "method", "tuner",
            "dpo.beta", "kto.beta", "kto.desirableWeight", "kto.undesirableWeight",
            "grpo.beta", "grpo.numGenerations", "grpo.maxCompletionLength",
            "lora.rank", "lora.alpha", "lora.dropout", "lora.useRslora",
            "training", "training.globalBatchSize", "training.maxLength", "training.truncation", "training.lossOn",
            "training.scheduler", "training.warmupRatio", "training.weightDecay", "training.maxGradNorm",
            "training.precision", "training.gradientCheckpointing", "training.packing", "training.seed",
            "training.loggingSteps",
            "parallelism", "parallelism.nodes", "parallelism.strategy", "parallelism.tensorParallel",
            "export", "export.merge", "export.quantize.bits", "export.quantize.groupSize",
        }
    ),
    "EvalJob": frozenset(
        {
            "model.trustRemoteCode", "baseline.trustRemoteCode", "benchmarks[].dataset.type", "gates[].metric",
            "generation", "generation.maxTokens", "generation.temperature", "generation.concurrency", "engine",
        }
    ),
    "InferenceService": frozenset(
        {
            "model.trustRemoteCode", "engine", "replicas", "autoscaling.minReplicas", "disruptionBudget",
            "rollout", "rollout.strategy", "rollout.readyTimeout", "drainSeconds",
        }
    ),
}  # fmt: skip
"""Fields of release 0.2.0 that have a default: it is part of the hash."""


def canonical(value: Any) -> bytes:
    """Return JSON with sorted keys and no spaces: equal values give equal bytes, also 1.0 and 1, as in the API server."""
    return json.dumps(_plain_numbers(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _plain_numbers(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: _plain_numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_numbers(item) for item in value]
    return value


def digest(value: Any) -> str:
    """Return the sha256 of a JSON value, as hex."""
    return hashlib.sha256(canonical(value)).hexdigest()


def decisive(kind: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of `spec` (camelCase data with defaults) that decides the result of a run."""
    return _decisive(SPECS[kind], spec, HASHED_DEFAULTS[kind])


def spec_hash(kind: str, spec: Mapping[str, Any]) -> str:
    """Return the first 16 hex digits of the hash of the decisive part of `spec` (camelCase data with defaults)."""
    relevant = decisive(kind, spec)
    training = relevant.get("training")
    if training is not None and not {"epochs", "maxSteps"} & training.keys():
        relevant["training"] = {**training, "epochs": 1}  # the default that releases up to 0.2.0 stored
    return digest({"kind": kind, "spec": relevant})[:16]


def _decisive(
    type_: type[ApiModel], value: Mapping[str, Any], hashed: frozenset[str], path: str = ""
) -> dict[str, Any]:
    fields = _fields(type_)
    kept = {}
    for key, item in value.items():
        place = path + key
        field = fields.get(key, _Field(None, None))
        reduced = _reduced(field.type_, item, hashed, place)
        is_default = place not in hashed and reduced == _reduced(field.type_, field.default, hashed, place)
        if not is_default and place not in IRRELEVANT:
            kept[key] = reduced
    return kept


def _reduced(type_: type[ApiModel] | None, value: Any, hashed: frozenset[str], path: str) -> Any:
    if type_ is not None and isinstance(value, Mapping):
        return _decisive(type_, value, hashed, f"{path}.")
    if type_ is not None and isinstance(value, list):
        return [_decisive(type_, item, hashed, f"{path}[].") for item in value]
    return value


@dataclass(frozen=True)
class _Field:
    type_: type[ApiModel] | None
    """Type of the objects in it; None for a scalar."""
    default: Any
    """Default as JSON-ready data; None for a required field, which is never null."""


@cache
def _fields(type_: type[ApiModel]) -> dict[str | None, _Field]:
    defaults = {
        field.alias: None if field.is_required() else field.get_default(call_default_factory=True)
        for field in type_.model_fields.values()
    }
    plain = to_jsonable_python(defaults, by_alias=True, exclude_none=True)
    return {
        field.alias: _Field(api_type_in(field.annotation), plain.get(field.alias))
        for field in type_.model_fields.values()
    }
