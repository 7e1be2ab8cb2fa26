"""The chart's manifests under different values."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.manifests import load_all
from tests.unit.chart.conftest import CHART, SCHEMA, Helm, Manifest, Render
from tunesmith_api.finetunejob import FineTuneJob
from tunesmith_operator.client import RESOURCES
from tunesmith_operator.plan.config import OperatorConfig

ROOT = Path(__file__).resolve().parents[3]
NAMESPACED = {"scope": {"namespaces": ["team-a", "team-b"]}, "crds": {"enabled": False}}
POLICY = {
    name: schema["type"] == "boolean" or [f"{name}-*"]
    for name, schema in SCHEMA["properties"]["podPolicy"]["properties"].items()
}


def only(manifests: list[Manifest], kind: str) -> Manifest:
    (found,) = [manifest for manifest in manifests if manifest["kind"] == kind]
    return found


def kinds(manifests: list[Manifest]) -> set[str]:
    return {manifest["kind"] for manifest in manifests}


def operator_config(manifests: list[Manifest]) -> OperatorConfig:
    return OperatorConfig.model_validate(yaml.safe_load(only(manifests, "ConfigMap")["data"]["config.yaml"]))


@pytest.mark.parametrize("values", [{}, NAMESPACED], ids=["whole cluster", "namespaces"])
def test_helm_lint_is_clean(helm: Helm, values: dict[str, Any]) -> None:
    done = helm("lint", "--strict", str(CHART), values=values)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout


@pytest.mark.parametrize(("version", "taken"), [("1.29.14", False), ("1.30.0", True), ("1.30.5-gke.1014", True)])
def test_a_kubernetes_older_than_those_tested_is_refused_at_install(helm: Helm, version: str, taken: bool) -> None:
    done = helm("template", str(CHART), f"--kube-version={version}")
    assert (done.returncode == 0) is taken, done.stderr
    assert taken or "kubeVersion: >=1.30" in done.stderr


def test_the_operator_reads_the_rendered_configuration(render: Render) -> None:
    config = operator_config(render())
    assert config.store.uri == "s3://tunesmith"
    assert config.store.endpoint is None
    assert config.namespaces == ()
    assert config.progress_url == "http://tunesmith-operator.tunesmith-system.svc:8082/v1/progress"
    assert config.leader_election.namespace == "tunesmith-system"
    assert (config.http.health_port, config.http.progress_port) == (8080, 8082)


def test_a_default_of_the_chart_is_the_operators_default_too(render: Render) -> None:
    config = operator_config(render())
    bare = OperatorConfig.model_validate({"images": {"runtime": "r"}, "store": {"uri": "s3://store"}})
    for name in ("workers", "client", "http", "namespaces", "allow_trust_remote_code", "pod_policy"):
        assert getattr(config, name) == getattr(bare, name)
    times = {"enabled", "lease_seconds", "renew_seconds", "retry_seconds"}
    assert config.leader_election.model_dump(include=times) == bare.leader_election.model_dump(include=times)


HUB = {
    "order": ["modelscope"],
    "endpoints": {"huggingface": ["https://mirror.example", "https://huggingface.co"], "modelscope": []},
    "tokenSecret": "hub-tokens",
}


def test_every_setting_reaches_the_operator(render: Render) -> None:
    config = operator_config(
        render(
            images={
                "runtime": "registry/runtime@sha256:ab",
                "engines": {"vllm": "registry/vllm:1", "sglang": ""},
                "pullPolicy": "Always",
            },
            store={
                "uri": "s3://models/team",
                "endpoint": "https://minio:9000",
                "region": "eu",
                "pathStyle": True,
                "caBundle": {"name": "ca", "key": "root.pem"},
                "credentialsSecret": "store",
            },
            hub=HUB,
            scope={"namespaces": ["team-a"]},
            podPolicy=POLICY,
            workers=3,
            client={"qps": 5.5, "burst": 7},
            leaderElection={"enabled": False, "leaseSeconds": 30, "renewSeconds": 20, "retrySeconds": 1.5},
            allowTrustRemoteCode=True,
        )
    )
    assert config == OperatorConfig.model_validate(
        {
            "images": {
                "runtime": "registry/runtime@sha256:ab",
                "engines": {"vllm": "registry/vllm:1"},
                "pullPolicy": "Always",
            },
            "store": {
                "uri": "s3://models/team",
                "endpoint": "https://minio:9000",
                "region": "eu",
                "pathStyle": True,
                "caBundle": {"name": "ca", "key": "root.pem"},
                "credentialsSecret": "store",
            },
            "hub": HUB,
            "progressUrl": "http://tunesmith-operator.tunesmith-system.svc:8082/v1/progress",
            "namespaces": ["team-a"],
            "podPolicy": POLICY,
            "workers": 3,
            "client": {"qps": 5.5, "burst": 7},
            "leaderElection": {
                "enabled": False,
                "namespace": "tunesmith-system",
                "name": "tunesmith-operator",
                "leaseSeconds": 30,
                "renewSeconds": 20,
                "retrySeconds": 1.5,
            },
            "allowTrustRemoteCode": True,
        }
    )


def test_only_a_changed_configuration_restarts_the_operator(render: Render) -> None:
    def checksum(**values: Any) -> str:
        annotations = only(render(**values), "Deployment")["spec"]["template"]["metadata"]["annotations"]
        return str(annotations["checksum/config"])

    assert checksum() == checksum(podLabels={"team": "a"})
    assert checksum() != checksum(workers=9)


def test_without_an_election_the_old_operator_ends_before_the_new_one_starts(render: Render) -> None:
    assert "strategy" not in only(render(), "Deployment")["spec"]
    alone = only(render(leaderElection={"enabled": False}), "Deployment")
    assert alone["spec"]["strategy"] == {"type": "Recreate"}


def test_the_pod_is_restricted(render: Render) -> None:
    pod = only(render(), "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [volume for volume in pod["volumes"] if "hostPath" in volume] == []


def test_probes_and_services_use_the_ports_of_the_operator(render: Render) -> None:
    manifests = render()
    config = operator_config(manifests)
    template = only(manifests, "Deployment")["spec"]["template"]
    (container,) = template["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"health": config.http.health_port, "progress": config.http.progress_port}
    assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "health"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}
    service = only(manifests, "Service")
    assert {port["name"]: port["port"] for port in service["spec"]["ports"]} == ports
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    assert config.progress_url is not None
    assert f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc:8082" in config.progress_url


def test_an_install_for_the_cluster_has_a_cluster_role(render: Render) -> None:
    manifests = render()
    assert "ClusterRoleBinding" in kinds(manifests)
    roles = [manifest["metadata"]["name"] for manifest in manifests if manifest["kind"] == "Role"]
    assert roles == ["tunesmith-operator-leader-election"]


def test_an_install_for_namespaces_has_no_cluster_role(render: Render) -> None:
    manifests = render(**NAMESPACED)
    assert not {kind for kind in kinds(manifests) if kind.startswith("Cluster") or kind == "CustomResourceDefinition"}
    bound = {
        manifest["metadata"]["namespace"]: manifest["subjects"]
        for manifest in manifests
        if manifest["kind"] == "RoleBinding" and manifest["metadata"]["name"] == "tunesmith-operator"
    }
    subject = {"kind": "ServiceAccount", "name": "tunesmith-operator", "namespace": "tunesmith-system"}
    assert bound == {"team-a": [subject], "team-b": [subject]}


def test_both_modes_give_the_same_rights(render: Render) -> None:
    def rights(manifests: list[Manifest], kind: str) -> list[Any]:
        name = "tunesmith-operator"
        return [m["rules"] for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name]

    (whole,) = rights(render(), "ClusterRole")
    assert rights(render(**NAMESPACED), "Role") == [whole, whole]


def test_the_operator_has_rights_on_its_own_kinds_only(render: Render) -> None:
    manifests = render(kueue={"enabled": True})
    roles = [m for m in manifests if m["kind"] in {"Role", "ClusterRole"} and "operator" in m["metadata"]["name"]]
    rules = [rule for role in roles for rule in role["rules"]]
    known = {resource.plural for resource in RESOURCES.values()}
    touched = {name.partition("/")[0] for rule in rules for name in rule["resources"]}
    assert touched == known
    assert not {"secrets", "configmaps", "pods/exec", "pods/log", "roles", "*"} & touched
    assert not [rule for rule in rules if "*" in rule["verbs"] + rule["apiGroups"]]
    writes = {verb for rule in rules if "pods" in rule["resources"] for verb in rule["verbs"]}
    assert writes <= {"get", "list", "watch"}
    deleted = {name for rule in rules if "delete" in rule["verbs"] for name in rule["resources"]}
    of_a_service = {"controllerrevisions", "horizontalpodautoscalers", "poddisruptionbudgets"}
    assert deleted == {"jobs", "services", *of_a_service}, "a Deployment goes with its resource"


def test_the_operator_may_change_its_own_lease_only(render: Render) -> None:
    manifests = render()
    (role,) = [m for m in manifests if m["kind"] == "Role"]
    named = [rule for rule in role["rules"] if {"get", "update"} & {*rule["verbs"]}]
    assert [rule["resourceNames"] for rule in named] == [[operator_config(manifests).leader_election.name]]
    assert not [m for m in render(leaderElection={"enabled": False}) if m["kind"] == "Role"]


def test_people_get_our_kinds_with_view_and_edit_unless_switched_off(render: Render) -> None:
    aggregated = {
        m["metadata"]["name"]: [
            label.rpartition("-")[2] for label in m["metadata"]["labels"] if "/aggregate-to-" in label
        ]
        for m in render()
        if m["kind"] == "ClusterRole" and m["metadata"]["name"] != "tunesmith-operator"
    }
    assert aggregated == {"tunesmith-view": ["view", "edit", "admin"], "tunesmith-edit": ["edit", "admin"]}
    off = [m["metadata"]["name"] for m in render(rbac={"aggregate": False}) if m["kind"] == "ClusterRole"]
    assert off == ["tunesmith-operator"]


def test_the_crds_are_those_of_the_project(render: Render) -> None:
    rendered = {m["metadata"]["name"]: m for m in render() if m["kind"] == "CustomResourceDefinition"}
    files = [crd for path in (ROOT / "crds").glob("*.yaml") for crd in load_all(path.read_text(encoding="utf-8"))]
    assert len(files) == 3
    assert {crd["metadata"]["name"]: crd["spec"] for crd in files} == {
        name: crd["spec"] for name, crd in rendered.items()
    }


def test_the_crds_stay_after_an_uninstall_unless_keep_is_off(render: Render) -> None:
    def policies(**values: Any) -> list[str | None]:
        return [
            m["metadata"].get("annotations", {}).get("helm.sh/resource-policy")
            for m in render(**values)
            if m["kind"] == "CustomResourceDefinition"
        ]

    assert policies() == ["keep"] * 3
    assert policies(crds={"keep": False}) == [None] * 3
    assert policies(crds={"enabled": False}) == []


@pytest.fixture
def notes(helm: Helm, tmp_path: Path) -> Callable[..., str]:
    """Helm's notes after an install. No command prints them without a cluster, so a ConfigMap carries them."""

    def rendered(**values: Any) -> str:
        chart = shutil.copytree(CHART, tmp_path / "chart")
        text = textwrap.indent((chart / "templates" / "NOTES.txt").read_text(encoding="utf-8"), "    ")
        head = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\ndata:\n  notes: |\n"
        (chart / "templates" / "notes.yaml").write_text(head + text, encoding="utf-8")
        done = helm("template", "tunesmith", str(chart), "--show-only=templates/notes.yaml", values=values)
        assert done.returncode == 0, done.stderr
        return str(yaml.safe_load(done.stdout)["data"]["notes"])

    return rendered


@pytest.mark.parametrize(("scope", "namespace"), [([], "default"), (["team-a", "team-b"], "team-a")])
def test_the_notes_lead_to_a_first_resource_without_the_demo(
    notes: Callable[..., str], scope: list[str], namespace: str
) -> None:
    store = {"uri": "s3://models/team/", "credentialsSecret": "store"}
    text = notes(store=store, scope={"namespaces": scope}, crds={"enabled": False})
    assert "demo" not in text
    assert "quickstart" not in text
    assert f"kubectl create secret generic store --namespace {namespace} " in text
    for command in (
        "apply --namespace {} --filename first.yaml",
        "get finetunejobs.tunesmith.dev first --namespace {} --watch",
        "get tunesmith --namespace {}",
    ):
        assert f"\n  kubectl {command.format(namespace)}\n" in text
    block = "  apiVersion" + text.partition("  apiVersion")[2].partition("\n\n")[0]
    first = FineTuneJob.model_validate(yaml.safe_load(textwrap.dedent(block)))
    assert first.spec.datasets[0].uri == "s3://models/team/train.jsonl"
    assert (ROOT / "examples" / "nvidia").is_dir()


def test_the_notes_need_no_credentials_where_pods_have_an_identity(notes: Callable[..., str]) -> None:
    assert "secret" not in notes()


def test_names_follow_the_release(helm: Helm) -> None:
    done = helm("template", "other", str(CHART), "--namespace=elsewhere")
    assert done.returncode == 0, done.stderr
    manifests = [m for m in load_all(done.stdout) if m["kind"] != "CustomResourceDefinition"]
    assert {m["metadata"]["name"].partition("-")[0] for m in manifests} == {"other"}
    namespaces = {m["metadata"].get("namespace", "elsewhere") for m in manifests}
    assert namespaces == {"elsewhere"}
