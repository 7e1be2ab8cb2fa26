"""The chart on a real API server: who can install it, what its roles allow, what is left when it goes."""

from __future__ import annotations

import json
import subprocess
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster.standalone import ControlPlane
from tests.established import until_established
from tests.releases import release
from tests.unit.chart.test_values import LEAVES, another, nested
from tunesmith_api.release import VERSION

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "tunesmith"
SYSTEM = "tunesmith-system"
OPERATOR = f"system:serviceaccount:{SYSTEM}:tunesmith-operator"
CRDS = ["evaljobs.tunesmith.dev", "finetunejobs.tunesmith.dev", "inferenceservices.tunesmith.dev"]
JOB = {
    "apiVersion": "tunesmith.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "support", "namespace": "team-a"},
    "spec": {"model": {"uri": "s3://models/base"}, "datasets": [{"uri": "s3://data/train.jsonl"}]},
}


@dataclass
class Cluster:
    """kubectl and helm on a control plane."""

    plane: ControlPlane

    def run(
        self, program: str, *arguments: str, stdin: str | None = None, fails: bool = False
    ) -> subprocess.CompletedProcess[str]:
        command = [self.plane.program(program), "--kubeconfig", str(self.plane.kubeconfig), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        assert fails or done.returncode == 0, f"{program} {' '.join(arguments)}: {done.stderr}"
        return done

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.run("kubectl", *arguments, stdin=stdin).stdout

    def install(
        self, namespace: str, *arguments: str, values: dict[str, Any] | None = None, chart: Path = CHART
    ) -> str:
        """Install or upgrade, without waiting: no pod runs here."""
        command = ["upgrade", "--install", "tunesmith", str(chart), "--namespace", namespace, "--values=-"]
        return self.run("helm", *command, *arguments, stdin=json.dumps(values or {})).stdout

    def uninstall(self, namespace: str) -> None:
        self.run("helm", "uninstall", "tunesmith", "--namespace", namespace, "--ignore-not-found")

    def can(self, who: str, namespace: str, verb: str, what: str) -> bool:
        resource, _, subresource = what.partition("/")
        return self.run(
            "kubectl", "auth", "can-i", verb, resource, f"--subresource={subresource}", "--namespace", namespace,
            "--as", who, fails=True,
        ).stdout.strip() == "yes"  # fmt: skip

    def crds(self) -> list[str]:
        return [name.partition("/")[2] for name in self.kubectl("get", "crds", "--output=name").split()]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with ControlPlane() as plane:
        cluster = Cluster(plane)
        for namespace in (SYSTEM, "team-a", "team-b"):
            cluster.kubectl("create", "namespace", namespace)
        cluster.kubectl("label", "namespace", SYSTEM, "pod-security.kubernetes.io/enforce=restricted")
        yield cluster


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> Iterator[str]:
    """The release for the whole cluster; its notes."""
    notes = cluster.install(SYSTEM, values={"store": {"credentialsSecret": "store"}})
    until_established(cluster.kubectl, *(f"crd/{name}" for name in CRDS))
    yield notes
    cluster.uninstall(SYSTEM)


def test_what_the_notes_say_to_do_next_can_be_done(cluster: Cluster, installed: str) -> None:
    assert "kubectl create secret generic store --namespace default" in installed
    manifest = "  apiVersion" + installed.partition("  apiVersion")[2].partition("\n\n")[0]
    apply = ("apply", "--dry-run=server", "--namespace=default", "--filename=-")
    assert "finetunejob.tunesmith.dev/first created" in cluster.kubectl(*apply, stdin=textwrap.dedent(manifest))
    cluster.kubectl("get", "tunesmith", "--namespace=default")
    cluster.kubectl("explain", "finetunejob.spec")


def test_an_upgrade_to_the_same_changes_no_object(cluster: Cluster, installed: str) -> None:
    def generations() -> dict[str, int]:
        items = json.loads(cluster.kubectl("get", "deployments,crds", "--namespace", SYSTEM, "--output=json"))["items"]
        return {item["metadata"]["name"]: item["metadata"]["generation"] for item in items}

    before = generations()
    cluster.install(SYSTEM, values={"store": {"credentialsSecret": "store"}})
    assert generations() == before


@pytest.mark.usefixtures("installed")
def test_the_operators_pod_is_admitted_under_the_restricted_profile(cluster: Cluster) -> None:
    deployment = json.loads(cluster.kubectl("get", "deployment/tunesmith-operator", "-n", SYSTEM, "--output=json"))
    pod = deployment["spec"]["template"]
    pod |= {"apiVersion": "v1", "kind": "Pod", "metadata": {**pod["metadata"], "name": "tried", "namespace": SYSTEM}}
    cluster.kubectl("create", "--dry-run=server", "--filename=-", stdin=json.dumps(pod))


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("verb", "what", "allowed"),
    [
        ("watch", "finetunejobs.tunesmith.dev", True),
        ("patch", "evaljobs.tunesmith.dev/status", True),
        ("update", "inferenceservices.tunesmith.dev/finalizers", True),
        ("create", "jobs.batch", True),
        ("patch", "deployments.apps", True),
        ("delete", "jobs.batch", True),
        ("patch", "services", True),
        ("delete", "deployments.apps", False),
        ("delete", "services", True),
        ("delete", "poddisruptionbudgets.policy", True),
        ("patch", "controllerrevisions.apps", False),
        ("list", "pods", True),
        ("create", "events", True),
        ("patch", "finetunejobs.tunesmith.dev", False),
        ("create", "finetunejobs.tunesmith.dev", False),
        ("delete", "inferenceservices.tunesmith.dev", False),
        ("get", "secrets", False),
        ("get", "configmaps", False),
        ("patch", "jobs.batch", False),
        ("create", "pods", False),
        ("create", "pods/exec", False),
        ("get", "pods/log", False),
        ("create", "roles.rbac.authorization.k8s.io", False),
        ("update", "leases.coordination.k8s.io", False),
    ],
)
def test_the_operator_may_do_its_work_and_no_more(cluster: Cluster, verb: str, what: str, allowed: bool) -> None:
    assert cluster.can(OPERATOR, "team-a", verb, what) is allowed


@pytest.mark.usefixtures("installed")
def test_the_operator_may_hold_its_own_lease_only(cluster: Cluster) -> None:
    lease = "leases.coordination.k8s.io/tunesmith-operator"
    for name, answer in ((lease, "yes"), ("leases.coordination.k8s.io/another", "no")):
        question = ("auth", "can-i", "update", name, "--namespace", SYSTEM, "--as", OPERATOR)
        assert cluster.run("kubectl", *question, fails=True).stdout.strip() == answer


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("role", "verb", "what", "allowed"),
    [
        ("view", "list", "finetunejobs.tunesmith.dev", True),
        ("view", "create", "finetunejobs.tunesmith.dev", False),
        ("view", "patch", "inferenceservices.tunesmith.dev/scale", False),
        ("edit", "create", "evaljobs.tunesmith.dev", True),
        ("edit", "delete", "finetunejobs.tunesmith.dev", True),
        ("edit", "patch", "inferenceservices.tunesmith.dev/scale", True),
        ("edit", "patch", "finetunejobs.tunesmith.dev/status", False),
    ],
)
def test_people_may_do_with_our_kinds_what_their_role_says(
    cluster: Cluster, role: str, verb: str, what: str, allowed: bool
) -> None:
    binding = ["create", "rolebinding", role, "--namespace=team-b", f"--clusterrole={role}", f"--user=the-{role}er"]
    cluster.run("kubectl", *binding, fails=True)  # made by the first case
    eventually(lambda: cluster.can(f"the-{role}er", "team-b", "list", "finetunejobs.tunesmith.dev"))
    assert cluster.can(f"the-{role}er", "team-b", verb, what) is allowed


@pytest.mark.parametrize("scope", [{}, {"scope": {"namespaces": ["team-a"]}}], ids=["whole cluster", "namespaces"])
def test_with_everything_set_the_api_server_knows_every_field(cluster: Cluster, scope: dict[str, Any]) -> None:
    """All but what needs other CRDs, and one of the two caches. A field that is misspelt in a template would be dropped without a word."""
    left_out = ("monitoring.", "scope.", "crds.", "cache.claim")
    values = {path: another(path) for path in LEAVES if not path.startswith(left_out)}
    values |= {"store.caBundle.name": "ca", "images.operator": "registry/operator:1", "leaderElection.enabled": True}
    manifests = cluster.run(
        "helm", "template", "tunesmith", str(CHART), "--namespace", SYSTEM, "--values=-",
        stdin=json.dumps({**nested(values), **scope}),
    ).stdout  # fmt: skip
    strict = ("apply", "--dry-run=server", "--validate=strict", "--filename=-")
    assert "deployment.apps/tunesmith-operator" in cluster.kubectl(*strict, stdin=manifests)
    misspelt = manifests.replace("priorityClassName:", "priorityClass:")
    refused = cluster.run("kubectl", *strict, stdin=misspelt, fails=True).stderr
    assert 'unknown field "spec.template.spec.priorityClass"' in refused


def test_an_admin_of_a_namespace_installs_it_there_without_a_cluster_role(cluster: Cluster) -> None:
    """As docs/chart.md says: with the CRDs and one aggregated role from the cluster's administrator."""
    cluster.kubectl("apply", "--filename", str(ROOT / "crds"))
    cluster.kubectl("apply", "--filename=-", stdin=documented_role())
    cluster.kubectl("create", "rolebinding", "anna", "--namespace=team-a", "--clusterrole=admin", "--user=anna")
    eventually(lambda: cluster.can("anna", "team-a", "update", "evaljobs.tunesmith.dev/finalizers"))
    values = {"scope": {"namespaces": ["team-a"]}, "crds": {"enabled": False}, "kueue": {"enabled": True}}
    cluster.install("team-a", "--kube-as-user=anna", values=values)
    operator = "system:serviceaccount:team-a:tunesmith-operator"
    assert cluster.can(operator, "team-a", "create", "jobs.batch")
    assert not cluster.can(operator, "team-b", "list", "finetunejobs.tunesmith.dev")
    cluster.uninstall("team-a")


def test_an_admin_of_a_namespace_upgrades_with_the_role_of_the_new_release_only(cluster: Cluster) -> None:
    """As docs/operations.md says: the API server lets nobody hand on rights that they have not got themselves."""
    operator = "system:serviceaccount:team-c:tunesmith-operator"

    def installs(chart: Path) -> subprocess.CompletedProcess[str]:
        values = {"scope": {"namespaces": ["team-c"]}, "crds": {"enabled": False}}
        command = ["upgrade", "--install", "tunesmith", str(chart), "--namespace=team-c", "--values=-"]
        return cluster.run("helm", *command, "--kube-as-user=berta", stdin=json.dumps(values), fails=True)

    def image() -> str:
        return cluster.kubectl("get", "--namespace=team-c", "deployments", "--output=jsonpath={..image}")

    cluster.kubectl("create", "namespace", "team-c")
    cluster.kubectl("apply", "--filename", str(ROOT / "crds"))
    cluster.kubectl("apply", "--filename", str(release("0.1.0").admin))
    cluster.kubectl("create", "rolebinding", "berta", "--namespace=team-c", "--clusterrole=admin", "--user=berta")
    eventually(lambda: cluster.can("berta", "team-c", "update", "evaljobs.tunesmith.dev/finalizers"))
    eventually(lambda: not cluster.can("berta", "team-c", "create", "controllerrevisions.apps"))
    old = installs(release("0.1.0").chart)
    assert old.returncode == 0, old.stderr

    refused = installs(CHART)
    assert refused.returncode != 0
    assert "attempting to grant RBAC permissions not currently held" in refused.stderr
    assert "controllerrevisions" in refused.stderr
    assert not cluster.can(operator, "team-c", "list", "controllerrevisions.apps"), "so the new pod is not ready"
    cluster.run("helm", "rollback", "tunesmith", "--namespace=team-c", "--kube-as-user=berta")
    assert image().endswith(":0.1.0")

    cluster.kubectl("apply", "--filename=-", stdin=documented_role())
    eventually(lambda: cluster.can("berta", "team-c", "create", "controllerrevisions.apps"))
    upgraded = installs(CHART)
    assert upgraded.returncode == 0, upgraded.stderr
    assert image().endswith(f":{VERSION}")
    assert cluster.can(operator, "team-c", "create", "controllerrevisions.apps")
    cluster.uninstall("team-c")


@pytest.mark.usefixtures("installed")
def test_resources_outlive_the_release_by_default(cluster: Cluster) -> None:
    cluster.kubectl("apply", "--filename=-", stdin=json.dumps(JOB))
    cluster.uninstall(SYSTEM)
    assert cluster.crds() == CRDS
    assert "support" in cluster.kubectl("get", "ftj", "--namespace=team-a", "--output=name")
    cluster.install(SYSTEM, values={"crds": {"keep": False}})
    assert "support" in cluster.kubectl("get", "ftj", "--namespace=team-a", "--output=name")
    cluster.uninstall(SYSTEM)
    eventually(lambda: cluster.crds() == [])


def test_an_upgrade_is_taken_back_with_the_crds_or_without_them(cluster: Cluster) -> None:
    """As docs/operations.md says."""

    def stands() -> tuple[str, bool]:
        """The operator's version, and whether the CRDs are those of today."""
        image = cluster.kubectl("get", f"--namespace={SYSTEM}", "deployments", "--output=jsonpath={..image}")
        schemas = cluster.kubectl("get", "crd", CRDS[0], "--output=jsonpath={..properties.status}")
        return image.rpartition(":")[2], '"x-kubernetes-map-type":"atomic"' in schemas

    old, values = release("0.1.0").chart, {"store": {"uri": "s3://models"}}
    cluster.install(SYSTEM, chart=old, values=values)
    assert stands() == ("0.1.0", False)
    cluster.install(SYSTEM, values={**values, "podPolicy": {"labels": ["team"]}})
    assert stands() == (VERSION, True)
    cluster.run("helm", "rollback", "tunesmith", "--namespace", SYSTEM)
    assert stands() == ("0.1.0", False)

    cluster.install(SYSTEM, values={**values, "podPolicy": {"labels": ["team"]}})
    given = cluster.run(
        "helm", "get", "values", "tunesmith", "--namespace", SYSTEM, "--revision=1", "--output=yaml"
    ).stdout
    cluster.install(SYSTEM, "--set=crds.enabled=false", chart=old, values=yaml.safe_load(given))
    assert stands() == ("0.1.0", True)
    cluster.uninstall(SYSTEM)


def eventually(holds: Any, seconds: float = 60) -> None:
    """Wait for a controller of the cluster to have done its part."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to hold"
        time.sleep(0.5)


def documented_role() -> str:
    """The ClusterRole that docs/chart.md lets a cluster's administrator create."""
    page = (ROOT / "docs" / "chart.md").read_text(encoding="utf-8")
    blocks = [block.partition("```")[0] for block in page.split("```yaml\n")[1:]]
    [role] = [block for block in blocks if yaml.safe_load(block).get("kind") == "ClusterRole"]
    return role
