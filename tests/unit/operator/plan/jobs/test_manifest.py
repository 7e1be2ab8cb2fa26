"""The Job of an attempt."""

from __future__ import annotations

import hashlib
from typing import Any

from tests.unit.operator.plan.world import CONFIG, fine_tune_job
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.run import ModelRole, ResolvedModel
from tunesmith_operator.plan.finetunejob.pod import plan_pod
from tunesmith_operator.plan.jobs.attempts import Role
from tunesmith_operator.plan.jobs.kind import NewAttempt
from tunesmith_operator.plan.jobs.manifest import job_manifest
from tunesmith_operator.plan.types import Raw

ROLE = Role(label="tune", preparation_label="prepare")


def manifest(queue: str | None = None, **spec: Any) -> Raw:
    resource = fine_tune_job(**spec)
    typed = FineTuneJobSpec.model_validate(resource["spec"])
    attempt = NewAttempt(resource, typed, ROLE, 3, {ModelRole.BASE: ResolvedModel(uri="s3://models/base")}, CONFIG)
    return job_manifest(resource, ROLE.label, plan_pod(attempt), 2, lambda uid, name: f"{uid} {name}", queue)


def test_a_job_keeps_its_number_the_failures_before_it_and_only_the_hash_of_its_token() -> None:
    job = manifest()
    secret = f"{fine_tune_job()['metadata']['uid']} support-tune-3"
    assert job["metadata"]["name"] == "support-tune-3"
    assert job["metadata"]["annotations"] == {
        "tunesmith.dev/attempt": "3",
        "tunesmith.dev/failures": "2",
        "tunesmith.dev/progress-token-sha256": hashlib.sha256(secret.encode()).hexdigest(),
    }


def test_retries_are_up_to_the_operator() -> None:
    spec = manifest()["spec"]
    assert {name: value for name, value in spec.items() if name != "template"} == {"backoffLimit": 0}


def test_a_job_in_a_queue_is_created_suspended_and_replaces_pods_only_after_they_stopped() -> None:
    job = manifest(queue="gpus")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert (job["spec"]["suspend"], job["spec"]["podReplacementPolicy"]) == (True, "Failed")


def test_several_pods_are_an_indexed_job_that_succeeds_with_pod_0() -> None:
    spec = manifest(parallelism={"nodes": 2})["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
    assert spec["successPolicy"] == {"rules": [{"succeededIndexes": "0"}]}
