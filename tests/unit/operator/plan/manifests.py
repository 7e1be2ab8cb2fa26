"""Children of typical resources, as plans create them: the manifests that the tests of this folder examine."""

from __future__ import annotations

from collections.abc import Iterator

from tests.unit.operator.plan.world import Cluster, eval_job, fine_tune_job, inference_service, tuned
from tunesmith_operator.plan.pods.reward_code import REWARD_CODE
from tunesmith_operator.plan.types import Raw, Reference

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
    "finetunejob-ascend-pods": fine_tune_job(resources={**ASCEND, "count": 8}, parallelism={"nodes": 2}),
    "finetunejob-mig": fine_tune_job(resources={"accelerator": "nvidia", "profile": "mig-3g.40gb"}),
    "finetunejob-amd": fine_tune_job(resources={"accelerator": "amd", "count": 4}),
    "finetunejob-pods": fine_tune_job(
        resources={**NVIDIA, "count": 8, "sharedMemory": None},
        parallelism={"nodes": 2, "near": {"topologyKey": "topology.kubernetes.io/zone"}},
    ),
    "finetunejob-volumes": fine_tune_job(
        model={"uri": "pvc://models/qwen3"},
        datasets=[{"uri": "pvc://rows.team/a.jsonl"}, {"uri": "s3://data/b.jsonl"}],
        validation={"uri": "pvc://rows.team/held-out.jsonl"},
        resources=NVIDIA,
    ),
    "finetunejob-named": fine_tune_job(
        model={"name": "qwen3-8b"}, datasets=[{"name": "alpaca-zh"}, {"uri": "s3://data/b.jsonl"}], resources=NVIDIA
    ),
    "finetunejob-rewards": fine_tune_job(
        method="ppo",
        rewards=[
            {"name": "taste", "type": "model", "model": {"uri": "s3://models/taste"}},
            {
                "name": "helpful",
                "type": "judge",
                "judge": {
                    "url": "https://judge.example/v1",
                    "model": "qwen3-32b",
                    "apiKeySecret": "tunesmith-judge",
                    "rubric": "Rate {completion}.",
                },
            },
            {"name": "tests", "type": "code", "code": {"configMap": {"name": "tunesmith-rewards", "key": "tests.py"}}},
        ],
        resources=NVIDIA,
    ),
    "evaljob-cpu": eval_job(model={"fineTuneJob": {"name": "support"}}, baseline={"uri": "hf://Qwen/Qwen3-8B"}),
    "evaljob-nvidia": eval_job(resources=NVIDIA),
    "inferenceservice-cpu": inference_service(model={"fineTuneJob": {"name": "support"}}, apiKeySecret="chat-key"),
    "inferenceservice-ascend": inference_service(resources=ASCEND, rollout={"strategy": "Recreate"}, replicas=2),
}


def children(thing: Raw) -> list[Raw]:
    """The children of a resource before the first pod of its work starts, including those that prepare it."""
    cluster = Cluster(thing)
    cluster.others[Reference("FineTuneJob", "support")] = tuned()
    cluster.begin()
    # A ControllerRevision repeats the Deployment's template; tests/apiserver/test_serving.py has real revisions.
    written = [manifest for plan in cluster.plans for manifest in (*plan.create, *plan.apply)]
    manifests = [manifest for manifest in written if manifest["kind"] != "ControllerRevision"]
    assert manifests, cluster.status
    return manifests


CHILDREN = {name: children(thing) for name, thing in RESOURCES.items()}


def templates() -> Iterator[tuple[str, Raw]]:
    for name, manifests in CHILDREN.items():
        for child in manifests:
            if "template" in child["spec"]:
                yield f"{name}/{child['metadata']['name']}", child["spec"]["template"]


TEMPLATES = dict(templates())
CONTAINERS = {
    f"{name}/{container['name']}": container
    for name, template in TEMPLATES.items()
    for container in [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]
    if container["name"] != REWARD_CODE
}
"""Those that run a verb."""
