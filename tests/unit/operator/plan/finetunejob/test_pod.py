"""The pod of a FineTuneJob's attempt."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.plan.world import CONFIG, fine_tune_job
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.run import ModelRole, ResolvedModel
from tunesmith_operator.plan.finetunejob.pod import plan_pod
from tunesmith_operator.plan.jobs.attempts import Role
from tunesmith_operator.plan.jobs.kind import NewAttempt
from tunesmith_operator.plan.pods.template import PodPlan, build_template

ROLE = Role(label="tune", preparation_label="prepare")


def pod(uri: str = "s3://models/base", **spec: Any) -> PodPlan:
    resource = fine_tune_job(**spec)
    typed = FineTuneJobSpec.model_validate(resource["spec"])
    return plan_pod(NewAttempt(resource, typed, ROLE, 2, {ModelRole.BASE: ResolvedModel(uri=uri)}, CONFIG))


def test_it_fetches_trains_and_exports_and_only_training_gets_the_devices() -> None:
    plan = pod()
    stages = [*plan.init, plan.main]
    assert [(stage.verb, stage.computes) for stage in stages] == [("fetch", False), ("train", True), ("export", False)]


def test_one_process_has_no_world_and_several_pods_have_a_service() -> None:
    assert (pod().run.world, pod().subdomain) == (None, None)
    plan = pod(parallelism={"nodes": 2})
    assert plan.run.world is not None
    assert plan.run.world.host == "support-tune-2-0.support-tune-world"
    assert plan.subdomain == "support-tune-world"


def test_results_go_to_the_namespace_of_the_store_unless_the_spec_names_a_folder() -> None:
    assert pod().run.output_uri == f"{CONFIG.store.uri}/runs/team/support"
    assert pod(output={"uri": "s3://mine/out"}).run.output_uri == "s3://mine/out"


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (pod(), False),
        (pod("hf://org/base"), False),
        (pod("catalogue://qwen3-8b"), True),
        (pod(datasets=[{"name": "alpaca-zh"}]), True),
    ],
    ids=["uri", "hub", "model", "data set"],
)
def test_a_pod_that_looks_up_names_mounts_the_catalogue_of_its_namespace_if_there_is_one(
    plan: PodPlan, expected: bool
) -> None:
    spec = build_template(plan)["spec"]
    volumes = [volume["configMap"] for volume in spec["volumes"] if volume["name"] == "catalogue"]
    assert volumes == ([{"name": "tunesmith-catalogue", "optional": True}] if expected else [])
    for container in [*spec["initContainers"], *spec["containers"]]:
        paths = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "catalogue"]
        assert paths == (["/etc/tunesmith-catalogue"] if expected else [])
