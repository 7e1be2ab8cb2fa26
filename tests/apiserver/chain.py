"""A chain of all three kinds, and the termination messages of its containers."""

from __future__ import annotations

import json

from tests.apiserver.cluster import Raw
from tests.apiserver.finetunejobs import ARTIFACTS, SPEC

DIGEST = str(ARTIFACTS[1]["digest"])
BASE_DIGEST = "c" * 64
TUNE: Raw = {"kind": "FineTuneJob", "metadata": {"name": "support"}, "spec": SPEC}
EVAL: Raw = {
    "kind": "EvalJob",
    "metadata": {"name": "support"},
    "spec": {
        "model": {"fineTuneJob": {"name": "support"}},
        "baseline": {"uri": "s3://models/base"},
        "benchmarks": [{"name": "words", "dataset": {"uri": "s3://data/test.jsonl"}}],
        "gates": [{"benchmark": "words", "metric": "accuracy", "min": 0.8}],
    },
}
SERVE: Raw = {
    "kind": "InferenceService",
    "metadata": {"name": "support"},
    "spec": {"model": {"fineTuneJob": {"name": "support"}}, "promotion": {"evalJobs": [{"name": "support"}]}},
}
UNJUDGED: Raw = {**SERVE, "spec": {"model": {"fineTuneJob": {"name": "support"}}}}
"""The same service without a gate."""


def evaluated(accuracy: float, digest: str) -> dict[str, str]:
    """The termination messages of an evaluation."""
    result = {"benchmark": "words", "metric": "accuracy", "value": accuracy, "samples": 50}
    reports = {
        "fetch": {"verb": "fetch", "outcome": "Succeeded", "modelDigest": digest},
        "evaluate": {"verb": "evaluate", "outcome": "Succeeded", "modelDigest": digest, "results": [result]},
    }
    return {name: json.dumps(report) for name, report in reports.items()}
