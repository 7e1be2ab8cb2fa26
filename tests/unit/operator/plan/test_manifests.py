"""Manifests of children against golden files; `TUNESMITH_UPDATE_GOLDENS=1 pytest …` writes them anew."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.operator.plan.world import (
    CONFIG,
    Cluster,
    eval_job,
    fine_tune_job,
    inference_service,
    token,
    tuned,
)
from tunesmith_api.pods import is_reserved
from tunesmith_api.run import RUN_ANNOTATION, RunSpec
from tunesmith_operator.plan import KINDS
from tunesmith_operator.plan.types import Raw, Reference

GOLDENS = Path(__file__).parent / "goldens"
UPDATE = os.environ.get("TUNESMITH_UPDATE_GOLDENS") == "1"

POD = {
    "nodeSelector": {"gpu": "a100"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "serviceAccountName": "trainer",
    "imagePullSecrets": [{"name": "registry"}],
    "env": [
        {"name": "HF_HUB_OFFLINE", "value": "1"},
        {"name": "PYTORCH_CUDA_ALLOC_CONF", "value": "backend:native"},
        {"name": "TUNESMITH_PROGRESS_TOKEN", "value": "forged"},
    ],
    "labels": {"cost-centre": "42", "tunesmith.dev/uid": "forged"},
    "annotations": {"note": "mine", "tunesmith.dev/run": "forged"},
    "priorityClassName": "batch",
    "runtimeClassName": "nvidia",
    "schedulerName": "volcano",
}
NVIDIA = {
    "accelerator": "nvidia",
    "count": 1,
    "cpu": "8",
    "memory": "64Gi",
    "ephemeralStorage": "200Gi",
    "sharedMemory": "8Gi",
}
ASCEND = {"accelerator": "ascend", "memory": "64Gi"}
OWN_STORAGE = {
    "endpoint": "https://minio.example:9000",
    "credentialsSecret": "mine",
    "caBundle": {"name": "my-ca", "key": "root.pem"},
}

RESOURCES: dict[str, Raw] = {
    "finetunejob-cpu": fine_tune_job(),
    "finetunejob-nvidia": fine_tune_job(resources=NVIDIA, pod=POD),
    "finetunejob-ascend": fine_tune_job(resources=ASCEND, storage=OWN_STORAGE, output={"uri": "s3://mine/out"}),
    "finetunejob-pods": fine_tune_job(
        resources={**NVIDIA, "count": 8, "sharedMemory": None},
        parallelism={"nodes": 2, "near": {"topologyKey": "topology.kubernetes.io/zone"}},
    ),
    "evaljob-cpu": eval_job(model={"fineTuneJob": {"name": "support"}}, baseline={"uri": "hf://Qwen/Qwen3-8B"}),
    "evaljob-nvidia": eval_job(resources=NVIDIA),
    "inferenceservice-cpu": inference_service(model={"fineTuneJob": {"name": "support"}}, apiKeySecret="chat-key"),
    "inferenceservice-ascend": inference_service(resources=ASCEND, rollout={"strategy": "Recreate"}, replicas=2),
}


def children(thing: Raw) -> list[Raw]:
    """All that is made for a resource before its first pod starts, what prepares that included."""
    cluster = Cluster(thing)
    cluster.others[Reference("FineTuneJob", "support")] = tuned()
    cluster.begin()
    # A ControllerRevision is the Deployment's template once more: tests/apiserver/test_serving.py has real ones.
    plans = [one for plan in cluster.plans for one in (*plan.create, *plan.apply)]
    made = [one for one in plans if one["kind"] != "ControllerRevision"]
    assert made, cluster.status
    return made


CHILDREN = {name: children(thing) for name, thing in RESOURCES.items()}


def templates() -> Iterator[tuple[str, Raw]]:
    for name, made in CHILDREN.items():
        for child in made:
            if "template" in child["spec"]:
                yield f"{name}/{child['metadata']['name']}", child["spec"]["template"]


TEMPLATES = dict(templates())
CONTAINERS = {
    f"{name}/{container['name']}": container
    for name, template in TEMPLATES.items()
    for container in [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]
}


class Plain(yaml.SafeDumper):
    """YAML without anchors, and text of several lines as blocks."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


@pytest.mark.parametrize("name", CHILDREN)
def test_the_children_are_as_in_the_golden_file(name):
    text = yaml.dump_all(CHILDREN[name], Dumper=Plain, sort_keys=False, width=1_000_000)
    golden = GOLDENS / f"{name}.yaml"
    if UPDATE:
        GOLDENS.mkdir(exist_ok=True)
        golden.write_text(text)
    assert golden.read_text() == text, "changed on purpose? TUNESMITH_UPDATE_GOLDENS=1"


def test_no_golden_file_is_left_over():
    assert {path.stem for path in GOLDENS.glob("*.yaml")} == set(CHILDREN)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_pod_fits_the_restricted_profile(name):
    spec = TEMPLATES[name]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert {next(iter(set(volume) - {"name"})) for volume in spec["volumes"]} <= {
        "downwardAPI",
        "emptyDir",
        "configMap",
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert not any("hostPort" in port for port in container.get("ports", []))


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_pod_gets_no_token_of_the_api_server(name):
    assert TEMPLATES[name]["spec"]["automountServiceAccountToken"] is False


@pytest.mark.parametrize("name", CONTAINERS)
def test_credentials_are_references_and_never_values(name):
    secrets = [one for one in CONTAINERS[name]["env"] if one["name"].startswith("AWS_") or "KEY" in one["name"]]
    assert secrets
    assert all("value" not in one and "secretKeyRef" in one["valueFrom"] for one in secrets)


@pytest.mark.parametrize("name", CONTAINERS)
def test_no_variable_comes_twice(name):
    names = [one["name"] for one in CONTAINERS[name]["env"]]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_is_a_verb_of_the_runtime_and_no_shell(name):
    container = CONTAINERS[name]
    assert container["args"] == [container["name"], "--spec", "/etc/tunesmith/run.json"]
    assert "command" not in container
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_run_spec_is_readable_by_the_runtime(name):
    text = TEMPLATES[name]["metadata"]["annotations"][RUN_ANNOTATION]
    run = RunSpec.model_validate_json(text)
    typed = {"FineTuneJob": run.fine_tune_job, "EvalJob": run.eval_job, "InferenceService": run.inference_service}
    assert typed[run.kind]()
    assert run.namespace == "team"
    assert len(text) < 100_000


def test_users_settings_reach_the_pod_and_never_replace_ours():
    template = TEMPLATES["finetunejob-nvidia/support-tune-1"]
    labels, annotations = template["metadata"]["labels"], template["metadata"]["annotations"]
    assert (labels["cost-centre"], labels["tunesmith.dev/uid"]) == ("42", "uid-of-support")
    assert annotations["note"] == "mine"
    assert annotations[RUN_ANNOTATION] != "forged"
    env = {one["name"]: one.get("value") for one in template["spec"]["initContainers"][1]["env"]}
    assert env["HF_HUB_OFFLINE"] == "1"
    assert env["PYTORCH_CUDA_ALLOC_CONF"] == "backend:native"
    assert env["TUNESMITH_PROGRESS_TOKEN"] == token("uid-of-support", "support-tune-1")
    for field in ("nodeSelector", "tolerations", "serviceAccountName", "imagePullSecrets", "priorityClassName"):
        assert template["spec"][field] == POD[field]
    assert (template["spec"]["runtimeClassName"], template["spec"]["schedulerName"]) == ("nvidia", "volcano")


def expanded(env: list[Raw]) -> dict[str, str]:
    """What the kubelet makes of `env`: $(NAME) by the variables before it, $$ is $ (EnvVar v1)."""
    known: dict[str, str] = {}
    for one in env:
        text = one.get("value", "a secret" if "secretKeyRef" in one.get("valueFrom", {}) else "")
        known[one["name"]] = re.sub(
            r"\$\$|\$\(([^)]*)\)",
            lambda found: "$" if found[0] == "$$" else known.get(found[1], found[0]),
            text,
        )
    return known


names = st.sampled_from(["A", "z", "TUNESMITH_POD", "HOME", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "https_proxy"])
values = st.lists(st.sampled_from(["$", "(", ")", "$(AWS_SECRET_ACCESS_KEY)", "$(HOME)", "$(A)", "x"])).map("".join)


@settings(max_examples=60, deadline=None)
@given(theirs=st.dictionaries(names, values))
def test_no_variable_of_a_user_tells_a_secret_or_stands_for_one_of_ours(theirs):
    spec = {"pod": {"env": [{"name": name, "value": value} for name, value in theirs.items()]}}
    cluster = Cluster(fine_tune_job(**spec))
    cluster.settle()
    pod = cluster.jobs["support-tune-1"]["spec"]["template"]["spec"]
    for container in (*pod.get("initContainers", []), *pod["containers"]):
        told = expanded(container["env"])
        kept = {name: value for name, value in theirs.items() if not is_reserved(name)}
        assert {name: told[name] for name in kept} == kept, "it is taken as it is written"
        assert [one["name"] for one in container["env"]][: len(kept)] == list(kept), "ours come after"
        assert (told["HOME"], told["AWS_SECRET_ACCESS_KEY"]) == ("/work/home", "a secret")
        assert not {"AWS_PROFILE", "https_proxy"} & set(told)


@pytest.mark.parametrize(
    ("name", "resource"),
    [("finetunejob-nvidia", "nvidia.com/gpu"), ("finetunejob-ascend", "huawei.com/Ascend910")],
)
def test_only_the_stage_that_computes_asks_for_a_device(name, resource):
    asks = {
        one: container["resources"].get("limits", {}).get(resource)
        for one, container in CONTAINERS.items()
        if one.startswith(f"{name}/")
    }
    assert asks == {
        f"{name}/support-prepare-1/prepare": None,
        f"{name}/support-tune-1/fetch": None,
        f"{name}/support-tune-1/train": "1",
        f"{name}/support-tune-1/export": None,
    }


@pytest.mark.parametrize("stage", ["support-prepare-1/prepare", "support-tune-1/fetch"])
def test_a_stage_without_a_device_sees_none(stage):
    env = {one["name"]: one.get("value") for one in CONTAINERS[f"finetunejob-nvidia/{stage}"]["env"]}
    assert env["NVIDIA_VISIBLE_DEVICES"] == "void"


def test_what_prepares_runs_on_any_node():
    spec = TEMPLATES["finetunejob-nvidia/support-prepare-1"]["spec"]
    assert not {"initContainers", "runtimeClassName", "affinity", "subdomain"} & set(spec)
    assert spec["tolerations"] == POD["tolerations"]


def test_a_resources_own_storage_wins_over_the_default():
    template = TEMPLATES["finetunejob-ascend/support-tune-1"]
    run = json.loads(template["metadata"]["annotations"][RUN_ANNOTATION])
    assert run["store"]["endpoint"] == "https://minio.example:9000"
    assert run["store"]["pathStyle"] is True
    assert run["store"]["caBundle"] == "/etc/tunesmith-ca/root.pem"
    assert run["outputUri"] == "s3://mine/out"
    container = template["spec"]["containers"][0]
    assert {one["valueFrom"]["secretKeyRef"]["name"] for one in container["env"] if one["name"].startswith("AWS")} == {
        "mine"
    }


def test_without_a_named_secret_the_service_accounts_identity_is_used():
    store = CONFIG.store.model_copy(update={"credentials_secret": None, "ca_bundle": None})
    cluster = Cluster(fine_tune_job(), config=CONFIG.model_copy(update={"store": store}))
    cluster.settle()
    spec = cluster.jobs["support-tune-1"]["spec"]["template"]["spec"]
    assert not any(one["name"].startswith("AWS_") for one in spec["containers"][0]["env"])
    assert [volume["name"] for volume in spec["volumes"]] == ["run", "work", "tmp"]


def test_a_job_has_the_hash_of_its_token_and_only_its_pod_the_token():
    (job,) = CHILDREN["finetunejob-cpu"]
    secret = token("uid-of-support", "support-tune-1")
    assert job["metadata"]["annotations"]["tunesmith.dev/progress-token-sha256"] == (
        hashlib.sha256(secret.encode()).hexdigest()
    )
    assert secret not in json.dumps(job["metadata"])
    assert secret not in json.dumps(job["spec"]["template"]["metadata"])


def test_a_service_has_no_progress_token_that_would_make_a_version_of_each_restart():
    assert "TUNESMITH_PROGRESS_TOKEN" not in json.dumps(CHILDREN["inferenceservice-cpu"])


@pytest.mark.parametrize("name", CHILDREN)
def test_a_child_is_owned_and_labelled(name):
    for child in CHILDREN[name]:
        (owner,) = child["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == ("uid-of-support", True, True)
        assert child["metadata"]["labels"]["tunesmith.dev/uid"] == "uid-of-support"
        assert child["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "tunesmith"
        assert child["metadata"]["namespace"] == "team"


def test_the_longest_name_leaves_room_for_its_children():
    name = "a" * 45
    for thing in (fine_tune_job(name), eval_job(name, baseline={"uri": "s3://m/b"}), inference_service(name)):
        cluster = Cluster(thing)
        cluster.settle()
        for child in [*cluster.jobs, *cluster.deployments, *cluster.services]:
            assert len(f"{child.removesuffix('1')}999" if child in cluster.jobs else child) <= 63, child


@pytest.mark.parametrize("name", RESOURCES)
def test_a_deployments_or_jobs_pods_are_found_by_their_labels(name):
    for child in CHILDREN[name]:
        wanted = child["spec"].get("selector", {})
        wanted = wanted.get("matchLabels", wanted)
        templates = [one["spec"]["template"] for one in (child, *CHILDREN[name]) if "template" in one["spec"]]
        assert any(wanted.items() <= template["metadata"]["labels"].items() for template in templates)


def test_what_a_kind_reads_is_what_it_makes():
    for name, made in CHILDREN.items():
        kind = KINDS[RESOURCES[name]["kind"]]
        fixed = {key.kind for key in kind.gets(RESOURCES[name])}
        assert {child["kind"] for child in made} <= fixed | set(kind.lists)
