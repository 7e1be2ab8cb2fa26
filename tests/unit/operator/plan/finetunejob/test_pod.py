"""The pod of a FineTuneJob's attempt."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.plan.world import CONFIG, Cluster, fine_tune_job, with_engines
from tunesmith_api.finetunejob import FineTuneJobSpec
from tunesmith_api.run import ModelRole, ResolvedModel
from tunesmith_operator.plan.finetunejob.pod import plan_pod
from tunesmith_operator.plan.jobs.attempts import Role
from tunesmith_operator.plan.jobs.kind import NewAttempt
from tunesmith_operator.plan.jobs.preparation import preparation_pod
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


CODE = {"configMap": {"name": "tunesmith-rewards", "key": "tests.py"}, "timeout": "2m", "memory": "512Mi"}
BY_CODE = {"method": "grpo", "rewards": [{"name": "tests", "type": "code", "code": CODE}]}


def test_the_container_of_a_rewards_code_has_the_code_and_a_socket_and_nothing_else() -> None:
    storage = {"credentialsSecret": "tunesmith-store", "caBundle": {"name": "ca"}}
    resources = {"accelerator": "nvidia", "count": 1}
    settings = {"env": [{"name": "MINE", "value": "1"}]}
    spec = build_template(pod(storage=storage, resources=resources, pod=settings, **BY_CODE))["spec"]
    assert [each["name"] for each in spec["initContainers"]] == ["fetch", "reward-code", "train"]
    assert spec["initContainers"][1] == {
        "name": "reward-code",
        "image": CONFIG.images.runtime,
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "command": ["python", "-m", "tunesmith_runtime.rewardcode"],
        "args": [
            *("--code", "/etc/tunesmith-rewards/reward.py", "--socket", "/run/tunesmith-rewards/socket"),
            *("--seconds", "120", "--memory", str(448 << 20)),
        ],
        "env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}],
        "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "512Mi"}},
        "volumeMounts": [
            {"name": "reward-code", "mountPath": "/etc/tunesmith-rewards", "readOnly": True},
            {"name": "reward-sockets", "mountPath": "/run/tunesmith-rewards"},
            {"name": "reward-tmp", "mountPath": "/tmp"},
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    volumes = {each["name"]: each for each in spec["volumes"]}
    items = [{"key": "tests.py", "path": "reward.py"}]
    assert volumes["reward-code"]["configMap"] == {"name": "tunesmith-rewards", "items": items}
    assert (spec["automountServiceAccountToken"], spec.get("shareProcessNamespace")) == (False, None)


def test_the_code_is_read_where_the_run_is_identified_and_its_socket_by_the_training() -> None:
    plan = pod(until="train", **BY_CODE)
    spec = build_template(plan)["spec"]
    assert [each["name"] for each in spec["initContainers"]] == ["fetch", "reward-code"]
    mounts = {
        each["name"]: [mount for mount in each["volumeMounts"] if mount["name"].startswith("reward-")]
        for each in (*spec["initContainers"], *spec["containers"])
    }
    assert mounts["fetch"] == [{"name": "reward-code", "mountPath": "/etc/tunesmith-rewards", "readOnly": True}]
    assert mounts["train"] == [{"name": "reward-sockets", "mountPath": "/run/tunesmith-rewards", "readOnly": True}]
    assert plan.run.reward_code_file == "/etc/tunesmith-rewards/reward.py"
    prepared = build_template(preparation_pod(plan, {}))["spec"]
    assert "initContainers" not in prepared
    assert [each["name"] for each in prepared["volumes"] if each["name"].startswith("reward")] == ["reward-code"]
    assert mounts["fetch"][0] in prepared["containers"][0]["volumeMounts"]


def test_the_key_of_a_judge_is_a_reference_in_the_training_alone() -> None:
    judge = {"url": "https://judge.example/v1", "model": "m", "rubric": "{completion}"}
    rewards = [
        {"name": "short", "type": "length", "freeTokens": 3},
        {"name": "taste", "type": "judge", "judge": {**judge, "apiKeySecret": "tunesmith-judge"}},
    ]
    plan = pod(method="grpo", rewards=rewards)
    spec = build_template(plan)["spec"]
    containers = {each["name"]: each for each in (*spec["initContainers"], *spec["containers"])}
    variables = {
        name: [each for each in container["env"] if each["name"].startswith("TUNESMITH_REWARD")]
        for name, container in containers.items()
    }
    reference = {"secretKeyRef": {"name": "tunesmith-judge", "key": "api-key"}}
    expected = [{"name": "TUNESMITH_REWARD_1_API_KEY", "valueFrom": reference}]
    assert variables == {"fetch": [], "train": expected, "export": []}


VLLM_JOB: dict[str, Any] = {
    "method": "grpo",
    "grpo": {"engine": "vllm"},
    "rewards": [{"name": "right", "type": "accuracy", "column": "answer"}],
    "resources": {"accelerator": "nvidia", "count": 1},
}


def test_a_training_whose_completions_vllm_samples_runs_in_its_image() -> None:
    cluster = Cluster(fine_tune_job(**VLLM_JOB), config=with_engines({"vllm": "registry/vllm:1"}))
    cluster.begin()
    (job,) = (each for name, each in cluster.jobs.items() if "tune" in name)
    spec = job["spec"]["template"]["spec"]
    images = {each["name"]: each["image"] for each in (*spec["initContainers"], *spec["containers"])}
    assert images == {"fetch": CONFIG.images.runtime, "train": "registry/vllm:1", "export": CONFIG.images.runtime}


def test_without_an_image_of_vllm_it_samples_for_no_training() -> None:
    cluster = Cluster(fine_tune_job(**VLLM_JOB), config=with_engines({}))
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Failed", "BadSpec")
    assert "grpo.engine vllm has no image here" in cluster.status["message"]
    assert (
        "set images.engines.vllm in the chart's values, or spec.grpo.engine: transformers" in cluster.status["message"]
    )
