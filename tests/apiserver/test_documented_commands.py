"""What the README, the docs, the demo and Helm's notes ask people to type is typed here, on a real API server.

KServe's InferenceService is in the cluster too. There is no kubelet: pods are reported ready and hold no processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml

from devcluster.standalone import ControlPlane
from tests.apiserver import cluster as api
from tests.apiserver.background import every
from tests.commands import Command, commands
from tests.established import until_established
from tests.releases import release
from tunesmith_operator.plan.names import labels

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
SYSTEM = "tunesmith-system"
TEAMS = ("default", "team-a", "demo")
KINDS = {"FineTuneJob": "finetunejobs", "EvalJob": "evaljobs", "InferenceService": "inferenceservices"}

SUBSTITUTIONS = {
    "=...": "=anything",
    "JOB-POD": "support-tune-1",
    "explain CLASS": "explain OOMKilled",
    "python -m tunesmith_operator.cli": f"{sys.executable} -m tunesmith_operator.cli",
    "tunesmith models": f"{sys.executable} -m tunesmith_cli models",
}
"""What stands for something of the reader's own, and what it is here. A container's Python is that of the tests, and the
package with the command `tunesmith` need not be installed."""

Check = Callable[[str], bool]


def _has_target(command: str) -> bool:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return set(command.partition("#")[0].split()[1:]) <= set(targets)


def _has_file(command: str) -> bool:
    return (ROOT / command.split(" -f ")[1].split()[0]).is_file()


ELSEWHERE: dict[str, tuple[str, Check]] = {
    r"make\b": ("builds and tests the repository itself", _has_target),
    r"(docker|buildah) build ": ("builds images of gigabytes", _has_file),
    r"kind ": ("needs a container engine", lambda command: True),
    r"eval \$\(python3 -m devcluster env\)": ("is of the embedded cluster", lambda command: True),
    r"python3 -m devcluster": ("starts the embedded cluster, or builds its programs", lambda command: True),
    r"python -m tests.bench": ("measures the machine, for minutes", lambda command: True),
    r"(uv tool|pip) install '?\.": ("installs packages: tests/unit/cli/test_install.py", lambda command: True),
    r"tunesmith (estimate|check) ": ("reads files of the reader's own: tests/unit/cli", lambda command: True),
    r"python -m tunesmith_api.crdgen": ("writes the repository's files: make verify", lambda command: True),
    r"velero ": ("needs Velero in the cluster", lambda command: set(_kinds(command)) == set(_full_names())),
    r"oc ": ("needs OpenShift", lambda command: True),
}
"""Commands that cannot be run here: how they begin, why, and what can be looked at all the same."""

IN_A_POD = re.compile(r"kubectl (exec|port-forward) ")
NO_KUBELET = re.compile(r"does not have a host assigned")
"""The API server has found the pod, and would now ask its kubelet."""
FOR_EVER = re.compile(r"--watch\b")
REMOVES = re.compile(r"\b(uninstall|delete)\b")


def _kinds(command: str) -> list[str]:
    return re.findall(r"[a-z]+\.tunesmith\.dev", command)


def _full_names() -> list[str]:
    return [f"{plural}.tunesmith.dev" for plural in KINDS.values()]


def crd(group: str, kind: str) -> dict[str, Any]:
    """A CustomResourceDefinition that takes anything."""
    plural = f"{kind.lower()}s"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


OTHERS = [
    crd("serving.kserve.io", "InferenceService"),
    crd("monitoring.coreos.com", "PodMonitor"),
    crd("monitoring.coreos.com", "PrometheusRule"),
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "argocd"}},
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "argocd-cm", "namespace": "argocd"}},
    *({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in TEAMS),
    {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}},
]
"""What a cluster has beside ours."""


def blocks(page: Path) -> Iterator[Any]:
    """The manifests and values that a page shows as YAML."""
    for text in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL):
        yield list(yaml.safe_load_all(text))


def readmes_chain() -> list[Any]:
    """The three resources of the README."""
    [chain] = [manifests for manifests in blocks(ROOT / "README.md") if len(manifests) == 3]
    return list(chain)


def pod(namespace: str, resource: str) -> dict[str, Any]:
    """The pod of a FineTuneJob, with the names by which it is found."""
    job = {"kind": "FineTuneJob", "metadata": {"name": resource, "namespace": namespace, "uid": "uid"}}
    name = {"name": f"{resource}-tune-1", "namespace": namespace, "labels": labels(job, "tune")}
    containers = [{"name": name, "image": "none"} for name in ("fetch", "train", "export")]
    spec = {"initContainers": containers[:2], "containers": containers[2:]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": name, "spec": spec}


@dataclass
class Reader:
    """Who types: a shell with the cluster's kubeconfig in a folder that looks like the repository."""

    plane: ControlPlane
    folder: Path
    needs_a_look: bool = True

    def run(self, command: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        path = f"{Path(self.plane.program('kubectl')).parent}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "KUBECONFIG": str(self.plane.kubeconfig)}
        return subprocess.run(
            ["timeout", "120", "bash", "-euo", "pipefail", "-c", command],
            cwd=self.folder, env=environment, input=stdin, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def must(self, command: str, *manifests: Any) -> str:
        stdin = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}) if manifests else None
        done = self.run(command, stdin)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def install(self, *options: str) -> str:
        command = f"helm upgrade --install tunesmith charts/tunesmith --namespace {SYSTEM} --create-namespace"
        notes = self.must(" ".join([command, *options]))
        until_established(lambda *words: self.must(" ".join(("kubectl", *words))), *(f"crd/{n}" for n in _full_names()))
        return notes

    def uninstall(self) -> None:
        for namespace in (SYSTEM, "team-a"):
            self.must(f"helm uninstall tunesmith --namespace {namespace} --ignore-not-found")

    def settle_in(self) -> None:
        """As set_up, unless nothing has changed since."""
        if self.needs_a_look:
            self.set_up()
            self.needs_a_look = False

    def set_up(self) -> None:
        """A release with two revisions, the README's resources in each team's namespace, and those of the demo."""
        self.must("kubectl apply --filename -", *OTHERS)
        if self.run(f"helm status tunesmith --namespace {SYSTEM}").returncode:
            self.install()
        self.install()
        for team in TEAMS:
            self.must(f"kubectl apply --namespace {team} --filename -", *readmes_chain())
            self.under_way("support", team)
        self.must("kubectl apply --namespace demo --kustomize examples/quickstart")
        self.under_way("words", "demo")
        served = {"selector": {"tunesmith.dev/name": "words"}, "ports": [{"port": 80, "targetPort": 8000}]}
        meta = {"name": "words", "namespace": "demo"}
        self.must(
            "kubectl apply --filename -", {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": served}
        )

    def under_way(self, name: str, namespace: str) -> None:
        """The resources of that name are Ready, and there is the pod of the FineTuneJob."""
        if self.run(f"kubectl get pod {name}-tune-1 --namespace {namespace}").returncode:
            self.must("kubectl create --filename -", pod(namespace, name))
        for full in _full_names():
            self.ready(full, name, namespace)

    def ready(self, full: str, name: str, namespace: str) -> None:
        condition = {"type": "Ready", "status": "True", "reason": "Tested", "message": ""}
        # Of every generation that a command makes of it.
        condition |= {"observedGeneration": 1000, "lastTransitionTime": "2026-01-01T00:00:00Z"}
        patch = json.dumps({"status": {"phase": "Ready", "observedGeneration": 1000, "conditions": [condition]}})
        self.must(f"kubectl patch {full} {name} -n {namespace} --subresource=status --type=merge --patch '{patch}'")

    def types(self, command: str) -> str | None:
        """What is wrong with a command, in the reader's eyes; None where it does what it should."""
        syntax = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True, check=False)
        if syntax.returncode:
            return syntax.stderr
        for beginning, (_, check) in ELSEWHERE.items():
            if re.match(beginning, command):
                return None if check(command) else "it names what is not there"
        return self.does(command)

    def does(self, command: str) -> str | None:
        """Type a command that can be run here."""
        if not command.startswith("helm install"):
            self.settle_in()
        if command.startswith("helm install"):
            self.uninstall()
            self.needs_a_look = True
        if secret := re.match(r"kubectl create (secret) generic (\S+) (?:-n|--namespace) (\S+)", command):
            self.must(f"kubectl delete secret {secret[2]} --namespace {secret[3]} --ignore-not-found")
        for placeholder, value in SUBSTITUTIONS.items():
            command = command.replace(placeholder, value)
        if REMOVES.search(command):
            self.needs_a_look = True
        if FOR_EVER.search(command):
            done = self.run(f"timeout 3 {command}")
            return None if done.returncode == 124 else done.stderr or "it ended"
        done = self.run(re.sub(r" &$", "", command))
        if IN_A_POD.match(command):
            return None if NO_KUBELET.search(done.stderr) else done.stderr or "no pod was asked"
        if done.returncode or "No resources found" in done.stderr:
            return done.stderr or f"exit code {done.returncode}"
        return None


class Questions(BaseHTTPRequestHandler):
    """Answers a question that our server would take."""

    def do_POST(self) -> None:
        from tunesmith_runtime.serve.openai.requests import ChatRequest, parse

        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert (self.path, self.headers["Content-Type"]) == ("/v1/chat/completions", "application/json")
        parse(ChatRequest, body)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("repository")
    for name in ("charts", "crds", "examples", "docs"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copy(release("0.1.0").chart, folder)
    (folder / "support.yaml").write_text(yaml.safe_dump_all(readmes_chain()))
    [values] = next(block for block in blocks(ROOT / "docs" / "operations.md") if "store" in block[0])
    (folder / "values.yaml").write_text(yaml.safe_dump(values))
    [job] = next(blocks(ROOT / "docs" / "estimate.md"))
    (folder / "job.yaml").write_text(yaml.safe_dump({**job, "metadata": {"name": "estimated"}}))
    with ControlPlane() as plane, _server() as url:
        http = api.administrator(plane)
        SUBSTITUTIONS["http://localhost:8000"] = url
        with every(0.5, lambda: report_pods_ready(plane, http)):
            yield Reader(plane, folder)


@contextlib.contextmanager
def _server() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Questions)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def report_pods_ready(plane: ControlPlane, http: urllib3.PoolManager) -> None:
    """Report every pod as ready; none is bound to a node."""
    for pod in api.Cluster(plane, http, "").request("GET", "/api/v1/pods")["items"]:
        if pod["status"].get("phase") != "Running":
            cluster = api.Cluster(plane, http, pod["metadata"]["namespace"])
            with contextlib.suppress(api.Refused):  # it may be gone already
                api.Kubelet(cluster, pod).ready()


def all_work(reader: Reader, typed: Sequence[Command]) -> None:
    complaints = [f"{command.place}: {command.text}\n{why}" for command in typed if (why := reader.types(command.text))]
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_works(reader: Reader, page: Path) -> None:
    if typed := commands(page.name, page.read_text()):
        all_work(reader, typed)


@pytest.mark.parametrize(
    "values",
    [
        "",
        "--set store.uri=s3://models/team/ --set store.endpoint=http://minio:9000 --set store.credentialsSecret=store",
        "--set 'scope.namespaces={team-a}' --set crds.enabled=false --set store.credentialsSecret=store",
    ],
)
def test_every_command_of_helms_notes_works(reader: Reader, values: str) -> None:
    reader.settle_in()
    reader.must("kubectl delete finetunejobs.tunesmith.dev first --namespace default --ignore-not-found")
    notes = reader.install(values).partition("NOTES:\n")[2]
    manifest = "  apiVersion" + notes.partition("  apiVersion")[2].partition("\n\n")[0]
    (reader.folder / "first.yaml").write_text(textwrap.dedent(manifest))
    lines = re.findall(r"^  (kubectl .*)$", re.sub(r"\\\n\s*", "", notes), re.MULTILINE)
    assert len(lines) >= 4
    all_work(reader, [Command("NOTES.txt", line) for line in lines])


def test_every_command_of_the_demo_works_and_is_in_the_readme(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "quickstart"))
    import demo  # type: ignore[import-not-found]

    lines = [command for group in demo.AFTERWARDS.values() for command in group]
    all_work(reader, [Command("demo.py", line) for line in lines])
    readme = (ROOT / "README.md").read_text()
    assert not [line for line in lines if line not in readme and "explain" not in line]


def test_the_backup_is_of_our_kinds_and_can_be_restored(reader: Reader) -> None:
    """KServe's InferenceService has the same name."""
    reader.settle_in()
    page = {
        command.text.partition(" ")[2]: command.text
        for command in commands("operations.md", (ROOT / "docs/operations.md").read_text())
    }
    [backup] = [text for text in page.values() if text.endswith("> tunesmith.yaml")]
    assert reader.does(backup) is None
    saved = yaml.safe_load((reader.folder / "tunesmith.yaml").read_text())["items"]
    assert {manifest["apiVersion"] for manifest in saved} == {"tunesmith.dev/v1alpha1"}
    assert {manifest["kind"] for manifest in saved} == set(KINDS)
    reader.must("kubectl delete tunesmith --all --all-namespaces")
    reader.must("kubectl apply -f tunesmith.yaml")
    names = reader.must("kubectl get tunesmith --all-namespaces --output=name").split()
    assert len(names) == len(saved)
    reader.must("kubectl apply -f tunesmith.yaml")
    reader.set_up()  # what was restored can be applied from Git again


def test_the_short_name_of_a_service_is_kserves_where_both_are_there(reader: Reader) -> None:
    """Which is why the pages write full names."""
    reader.settle_in()
    assert "No resources found" in reader.run("kubectl get inferenceservices --namespace team-a").stderr
    assert "support" in reader.must("kubectl get inferenceservices.tunesmith.dev --namespace team-a")
    assert "support" in reader.must("kubectl get tsvc --namespace team-a")


@pytest.mark.parametrize(
    "command",
    [
        "kubectl get tunesmith --watch",
        "kubectl get finetunejob support --namespace team-b",
        "kubectl get inferenceservice support --namespace team-a",
        "kubectl logs -n demo --selector app=words --container train",
        "kubectl exec --namespace tunesmith-system deployment/tunesmith -- true",
        "kubectl port-forward -n demo service/word 8000:80 &",
        "helm upgrade tunesmith charts/tunesmith --namespace tunesmith-system --set nonsense=1",
        "make everything",
        "docker build -f Dockerfile .",
        "kubectl wait --for=condition=Ready --timeout=1s finetunejob/nothing",
        "kubectl get 'pods",
        "tunesmithctl get jobs",
        "curl -s --fail http://localhost:8000/v1/chat/completions -H 'Content-Type: application/json' -d '{\"messages\": 1}'",
        "velero backup create tunesmith --include-resources finetunejobs.tunesmith.dev",
    ],
)  # fmt: skip
def test_a_command_that_does_not_work_is_found(reader: Reader, command: str) -> None:
    assert reader.types(command)
