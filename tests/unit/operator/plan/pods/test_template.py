"""Pod templates: restricted, without secrets, with the settings of the user and the devices of the stage that computes."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.operator.plan.manifests import CONTAINERS, POD, TEMPLATES
from tests.unit.operator.plan.world import CONFIG, Cluster, eval_job, fine_tune_job, inference_service, token, tuned
from tunesmith_api.pods import Accelerator, is_reserved
from tunesmith_api.run import RUN_ANNOTATION, RunSpec
from tunesmith_api.tracking import CREDENTIALS, TrackerName
from tunesmith_operator.plan.config import AcceleratorSettings, HubDefaults
from tunesmith_operator.plan.types import Raw, Reference


def values_of(container: Raw) -> dict[str, str | None]:
    """The variables of a container, with the values that the template states."""
    return {variable["name"]: variable.get("value") for variable in container["env"]}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_pod_fits_the_restricted_profile(name):
    spec = TEMPLATES[name]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert {next(iter(set(volume) - {"name"})) for volume in spec["volumes"]} <= {
        "downwardAPI",
        "emptyDir",
        "configMap",
        "persistentVolumeClaim",
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
    env = CONTAINERS[name]["env"]
    secrets = [variable for variable in env if variable["name"].startswith("AWS_") or "KEY" in variable["name"]]
    assert secrets
    assert all("value" not in variable and "secretKeyRef" in variable["valueFrom"] for variable in secrets)


@pytest.mark.parametrize("tracker", TrackerName)
def test_the_token_of_a_tracker_is_a_reference_in_the_container_that_trains(tracker: TrackerName) -> None:
    tracking = {"to": tracker.value, "url": "https://tracker.example", "secret": "tunesmith-ml"}
    cluster = Cluster(fine_tune_job(tracking=tracking))
    cluster.begin()
    (job,) = cluster.jobs.values()
    spec = job["spec"]["template"]["spec"]
    containers = {each["name"]: each["env"] for each in (*spec["initContainers"], *spec["containers"])}
    tokens = {name: [each for each in env if each["name"] in CREDENTIALS[tracker]] for name, env in containers.items()}
    assert {name for name, found in tokens.items() if found} == {"train"}
    assert [each["name"] for each in tokens["train"]] == list(CREDENTIALS[tracker])
    for each in tokens["train"]:
        reference = {"name": "tunesmith-ml", "key": each["name"], "optional": True}
        assert each["valueFrom"] == {"secretKeyRef": reference}


@pytest.mark.parametrize("name", CONTAINERS)
def test_no_variable_is_set_twice(name):
    names = [variable["name"] for variable in CONTAINERS[name]["env"]]
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


def test_the_users_settings_reach_the_pod_and_never_replace_the_operators():
    template = TEMPLATES["finetunejob-nvidia/support-tune-1"]
    labels, annotations = template["metadata"]["labels"], template["metadata"]["annotations"]
    assert (labels["cost-centre"], labels["tunesmith.dev/uid"]) == ("42", "uid-of-support")
    assert annotations["note"] == "mine"
    assert annotations[RUN_ANNOTATION] != "forged"
    env = values_of(template["spec"]["initContainers"][1])
    assert env["HF_HUB_OFFLINE"] == "1"
    assert env["PYTORCH_CUDA_ALLOC_CONF"] == "backend:native"
    assert env["TUNESMITH_PROGRESS_TOKEN"] == token("uid-of-support", "support-tune-1")
    for field in ("nodeSelector", "tolerations", "serviceAccountName", "imagePullSecrets", "priorityClassName"):
        assert template["spec"][field] == POD[field]
    assert (template["spec"]["runtimeClassName"], template["spec"]["schedulerName"]) == ("nvidia", "volcano")


def test_the_variables_of_an_installation_precede_those_of_the_vendor_and_not_those_of_users():
    env = {"NCCL_SOCKET_IFNAME": "net1", "NCCL_DEBUG": "INFO", "PYTORCH_CUDA_ALLOC_CONF": "backend:native"}
    config = CONFIG.model_copy(update={"accelerators": {Accelerator.NVIDIA: AcceleratorSettings(env=env)}})
    users = [{"name": "NCCL_DEBUG", "value": "TRACE"}]
    job = fine_tune_job(resources={"accelerator": "nvidia", "count": 2}, pod={"env": users})
    cluster = Cluster(job, config=config)
    cluster.begin()
    pod = cluster.jobs["support-tune-1"]["spec"]["template"]["spec"]
    fetch, train = (values_of(container) for container in pod["initContainers"][:2])
    assert {name: train[name] for name in env} == {**env, "NCCL_DEBUG": "TRACE"}
    assert "NCCL_SOCKET_IFNAME" not in fetch


def test_a_given_chat_template_is_mounted_where_every_container_reads_it():
    source = {"name": "templates", "key": "brief.jinja"}
    cluster = Cluster(fine_tune_job(training={"chatTemplate": {"configMap": source}}))
    cluster.settle()
    template = cluster.jobs["support-tune-1"]["spec"]["template"]
    file = RunSpec.model_validate_json(template["metadata"]["annotations"][RUN_ANNOTATION]).chat_template_file
    assert file
    folder, _, name = file.rpartition("/")
    config_map = {"name": "templates", "items": [{"key": "brief.jinja", "path": name}]}  # not optional: the pod waits
    assert {"name": "template", "configMap": config_map} in template["spec"]["volumes"]
    mount = {"name": "template", "mountPath": folder, "readOnly": True}
    for container in (*template["spec"]["initContainers"], *template["spec"]["containers"]):
        assert mount in container["volumeMounts"]


def expanded(env: list[Raw]) -> dict[str, str]:
    """Expand `env` as the kubelet does: $(NAME) by the variables before it, $$ to $ (EnvVar v1)."""
    known: dict[str, str] = {}
    for variable in env:
        text = variable.get("value", "a secret" if "secretKeyRef" in variable.get("valueFrom", {}) else "")
        known[variable["name"]] = re.sub(
            r"\$\$|\$\(([^)]*)\)",
            lambda found: "$" if found[0] == "$$" else known.get(found[1], found[0]),
            text,
        )
    return known


names = st.sampled_from(["A", "z", "TUNESMITH_POD", "HOME", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "https_proxy"])
values = st.lists(st.sampled_from(["$", "(", ")", "$(AWS_SECRET_ACCESS_KEY)", "$(HOME)", "$(A)", "x"])).map("".join)


@given(users=st.dictionaries(names, values))
def test_no_variable_of_a_user_expands_to_a_secret_or_replaces_one_of_the_operator(users):
    spec = {"pod": {"env": [{"name": name, "value": value} for name, value in users.items()]}}
    cluster = Cluster(fine_tune_job(**spec))
    cluster.settle()
    pod = cluster.jobs["support-tune-1"]["spec"]["template"]["spec"]
    for container in (*pod.get("initContainers", []), *pod["containers"]):
        env = expanded(container["env"])
        kept = {name: value for name, value in users.items() if not is_reserved(name)}
        assert {name: env[name] for name in kept} == kept, "the text is not expanded"
        assert [variable["name"] for variable in container["env"]][: len(kept)] == list(kept), "the operator's follow"
        assert (env["HOME"], env["AWS_SECRET_ACCESS_KEY"]) == ("/work/home", "a secret")
        assert not {"AWS_PROFILE", "https_proxy"} & set(env)


@pytest.mark.parametrize(
    ("name", "resource"),
    [("finetunejob-nvidia", "nvidia.com/gpu"), ("finetunejob-ascend", "huawei.com/Ascend910")],
)
def test_only_the_stage_that_computes_requests_a_device(name, resource):
    requested = {
        path: container["resources"].get("limits", {}).get(resource)
        for path, container in CONTAINERS.items()
        if path.startswith(f"{name}/")
    }
    assert requested == {
        f"{name}/support-prepare-1/prepare": None,
        f"{name}/support-tune-1/fetch": None,
        f"{name}/support-tune-1/train": "1",
        f"{name}/support-tune-1/export": None,
    }


@pytest.mark.parametrize("stage", ["support-prepare-1/prepare", "support-tune-1/fetch"])
def test_a_stage_without_a_device_sees_none(stage):
    env = values_of(CONTAINERS[f"finetunejob-nvidia/{stage}"])
    assert env["NVIDIA_VISIBLE_DEVICES"] == "void"


def test_the_storage_of_a_resource_overrides_the_default():
    template = TEMPLATES["finetunejob-ascend/support-tune-1"]
    run = json.loads(template["metadata"]["annotations"][RUN_ANNOTATION])
    assert run["store"]["endpoint"] == "https://minio.example:9000"
    assert run["store"]["pathStyle"] is True
    assert run["store"]["caBundle"] == "/etc/tunesmith-ca/root.pem"
    assert run["outputUri"] == "s3://mine/out"
    container = template["spec"]["containers"][0]
    credentials = [variable for variable in container["env"] if variable["name"].startswith("AWS")]
    assert {variable["valueFrom"]["secretKeyRef"]["name"] for variable in credentials} == {"mine"}


def test_without_a_credentials_secret_the_pod_has_the_identity_of_its_service_account():
    store = CONFIG.store.model_copy(update={"credentials_secret": None, "ca_bundle": None})
    cluster = Cluster(fine_tune_job(), config=CONFIG.model_copy(update={"store": store}))
    cluster.settle()
    spec = cluster.jobs["support-tune-1"]["spec"]["template"]["spec"]
    assert not any(variable["name"].startswith("AWS_") for variable in spec["containers"][0]["env"])
    assert [volume["name"] for volume in spec["volumes"]] == ["run", "work", "tmp"]


def claims(spec: Raw) -> dict[str, Raw]:
    """The volumes of a pod that are claims, by name."""
    return {
        volume["name"]: volume["persistentVolumeClaim"]
        for volume in spec["volumes"]
        if "persistentVolumeClaim" in volume
    }


def mounts_of_claims(spec: Raw) -> dict[str, dict[str, Raw]]:
    """Container -> its mounts of claims, by name."""
    containers = [*spec.get("initContainers", []), *spec["containers"]]
    return {
        container["name"]: {
            mount["name"]: mount for mount in container["volumeMounts"] if mount["name"] in claims(spec)
        }
        for container in containers
    }


@pytest.mark.parametrize(("job", "reader"), [("support-prepare-1", "prepare"), ("support-tune-1", "fetch")])
def test_the_claims_of_a_spec_are_mounted_read_only_where_they_are_read(job, reader):
    spec = TEMPLATES[f"finetunejob-volumes/{job}"]["spec"]
    assert claims(spec) == {
        "claim-0": {"claimName": "models", "readOnly": True},
        "claim-1": {"claimName": "rows.team", "readOnly": True},
    }
    mounts = mounts_of_claims(spec)
    assert mounts.pop(reader) == {
        "claim-0": {"name": "claim-0", "mountPath": "/volumes/models", "readOnly": True},
        "claim-1": {"name": "claim-1", "mountPath": "/volumes/rows.team", "readOnly": True},
    }
    assert not any(mounts.values())


def test_no_pod_has_a_claim_that_its_spec_does_not_name():
    named = {name.partition("/")[0] for name, template in TEMPLATES.items() if claims(template["spec"])}
    assert named == {"finetunejob-volumes"}


def first_template(thing: Raw, *others: Raw) -> Raw:
    """The spec of the first pods that a resource creates."""
    cluster = Cluster(thing)
    for other in others:
        cluster.others[Reference("FineTuneJob", other["metadata"]["name"])] = other
    cluster.begin()
    manifests = [manifest for plan in cluster.plans for manifest in (*plan.create, *plan.apply)]
    return next(
        manifest["spec"]["template"]["spec"] for manifest in manifests if "template" in manifest.get("spec", {})
    )


BENCHMARK = {"name": "own", "dataset": {"uri": "pvc://questions/test.jsonl"}}
ON_VOLUMES = {
    "an evaluation's model": (eval_job(model={"uri": "pvc://models/a"}), ["models"]),
    "an evaluation's questions": (eval_job(benchmarks=[BENCHMARK]), ["questions"]),
    "a service's model and adapters": (
        inference_service(model={"uri": "pvc://models/a"}, adapters=[{"name": "fr", "uri": "pvc://adapters/fr"}]),
        ["adapters", "models"],
    ),
}


@pytest.mark.parametrize("case", ON_VOLUMES)
def test_evaluations_and_services_mount_their_claims(case):
    thing, expected = ON_VOLUMES[case]
    spec = first_template(thing)
    assert [claim["claimName"] for claim in claims(spec).values()] == expected
    assert len(mounts_of_claims(spec)["fetch"]) == len(expected)


@pytest.mark.parametrize("make", [eval_job, inference_service])
def test_the_adapter_of_a_job_is_served_with_the_claim_of_its_base(make):
    job = tuned(model={"uri": "pvc://models/qwen3"}, export={"merge": False})
    adapter = {"name": "adapter", "uri": "s3://store/run/adapter", "digest": "d1"}
    job["status"] |= {"artifacts": [adapter], "model": {"uri": "pvc://models/qwen3", "digest": "d0"}}
    spec = first_template(make(model={"fineTuneJob": {"name": "support"}}), job)
    assert [claim["claimName"] for claim in claims(spec).values()] == ["models"]


def test_several_pods_that_train_together_mount_the_same_claim():
    spec = first_template(fine_tune_job(model={"uri": "pvc://models/a"}, parallelism={"nodes": 2}))
    assert [claim["claimName"] for claim in claims(spec).values()] == ["models"]


MIRRORED = CONFIG.model_copy(
    update={
        "hub": HubDefaults.model_validate(
            {"order": ["modelscope"], "endpoints": {"huggingface": ["http://mirror:80"]}, "tokenSecret": "hub-tokens"}
        )
    }
)


def tokens_of(container: Raw) -> dict[str, Raw]:
    """The variables with a token of a hub, and where their values come from."""
    return {
        each["name"]: each.get("valueFrom", each)
        for each in container["env"]
        if each["name"] in ("HF_TOKEN", "MODELSCOPE_API_TOKEN")
    }


def test_the_hubs_settings_reach_the_pods_that_import_and_the_tokens_only_the_containers_that_do():
    cluster = Cluster(fine_tune_job(model={"uri": "hf://Qwen/Qwen3-8B"}), config=MIRRORED)
    cluster.settle()
    templates = {name: job["spec"]["template"] for name, job in cluster.jobs.items()}
    assert templates
    for template in templates.values():
        run = RunSpec.model_validate_json(template["metadata"]["annotations"][RUN_ANNOTATION])
        assert run.hub is not None
        assert run.hub.to_dict() == {"order": ["modelscope"], "endpoints": {"huggingface": ["http://mirror:80"]}}
        for container in [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]:
            reference = {"secretKeyRef": {"name": "hub-tokens", "optional": True}}
            expected = {
                name: {"secretKeyRef": {**reference["secretKeyRef"], "key": name}}
                for name in ("HF_TOKEN", "MODELSCOPE_API_TOKEN")
            }
            imports = container["name"] in ("fetch", "prepare")
            assert tokens_of(container) == (expected if imports else {}), container["name"]


def test_a_token_of_the_user_takes_precedence_over_the_charts():
    spec = {"pod": {"env": [{"name": "HF_TOKEN", "value": "hf_mine"}]}}
    cluster = Cluster(fine_tune_job(**spec), config=MIRRORED)
    cluster.settle()
    fetch = cluster.jobs["support-tune-1"]["spec"]["template"]["spec"]["initContainers"][0]
    assert tokens_of(fetch)["HF_TOKEN"] == {"name": "HF_TOKEN", "value": "hf_mine"}


@pytest.mark.parametrize(("uri", "changes"), [("s3://models/base", False), ("hf://Qwen/Qwen3-8B", True)])
def test_the_hubs_settings_roll_out_only_services_whose_model_can_come_from_a_hub(uri, changes):
    versions = set()
    for config in (CONFIG, MIRRORED):
        cluster = Cluster(inference_service(model={"uri": uri}), config=config)
        cluster.settle()
        [deployment] = cluster.deployments.values()
        versions.add(deployment["spec"]["template"]["metadata"]["annotations"]["tunesmith.dev/version"])
    assert len(versions) == (2 if changes else 1)
