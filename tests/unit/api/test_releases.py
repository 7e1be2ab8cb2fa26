"""Specs of earlier releases keep their hashes: with another hash, finished work would not be adopted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.releases import release
from tunesmith_api.base import ApiModel
from tunesmith_api.evaljob import EvalJobSpec
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.hashing import spec_hash

BASE = {"uri": "s3://models/base"}
TUNE: dict[str, Any] = {"model": BASE, "datasets": [{"uri": "s3://data/train.jsonl"}]}
EVAL: dict[str, Any] = {"model": BASE, "benchmarks": [{"name": "words", "dataset": {"uri": "s3://data/test.jsonl"}}]}
SPECS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("FineTuneJob", TUNE),
    ("FineTuneJob", {**TUNE, "method": "dpo", "dpo": {"beta": 0.2}}),
    ("FineTuneJob", {**TUNE, "method": "kto"}),
    ("FineTuneJob", {**TUNE, "tuner": "full", "rerun": "2"}),
    ("FineTuneJob", {**TUNE, "lora": {"rank": 8}, "training": {"epochs": 2, "learningRate": 5e-5}}),
    ("FineTuneJob", {**TUNE, "training": {"epochs": 1, "maxSteps": 40}}),
    (
        "FineTuneJob",
        {**TUNE, "resources": {"accelerator": "nvidia", "count": 2}, "output": {"uri": "s3://models/mine"}},
    ),
    ("FineTuneJob", {**TUNE, "validation": {"fraction": 0.1}, "checkpoint": {"everyMinutes": 3}, "queueName": "team"}),
    ("FineTuneJob", {**TUNE, "suspend": True, "retries": 5, "deadline": "3h", "ttlAfterFinished": "1h"}),
    ("EvalJob", EVAL),
    ("EvalJob", {**EVAL, "baseline": BASE, "gates": [{"benchmark": "words", "metric": "accuracy", "min": 0.5}]}),
    ("EvalJob", {**EVAL, "resources": {"accelerator": "ascend", "count": 1}, "retries": 1}),
)
TYPES: dict[str, type[ApiModel]] = {"FineTuneJob": FineTuneJobSpec, "EvalJob": EvalJobSpec}
OLD = """
import json, sys
from tunesmith_api.evaljob import EvalJobSpec
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.hashing import spec_hash
types = {"FineTuneJob": FineTuneJobSpec, "EvalJob": EvalJobSpec}
read = [(kind, types[kind].model_validate(spec).to_dict()) for kind, spec in json.load(sys.stdin)]
print(json.dumps([(data, spec_hash(kind, data)) for kind, data in read]))
"""


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_a_spec_of_an_earlier_release_has_the_same_hash(version: str) -> None:
    """As it was sent, and with the defaults of that release, as the API server stored it."""
    environment = {**os.environ, "PYTHONPATH": str(release(version).operator)}
    command = [sys.executable, "-c", OLD]
    done = subprocess.run(command, input=json.dumps(SPECS), env=environment, capture_output=True, text=True, check=True)
    for (kind, spec), (stored, wanted) in zip(SPECS, json.loads(done.stdout), strict=True):
        for held in (spec, stored):
            assert spec_hash(kind, TYPES[kind].model_validate(held).to_dict()) == wanted, held
