"""The contestants: plain Jobs, plain Jobs with our pods, Tunesmith, and Kubeflow Trainer with its JobSet controller."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import urllib3
import yaml

from devcluster.builds import ensure_programs, source_folder
from devcluster.paths import cache_paths
from devcluster.pki import kubeconfig
from devcluster.standalone import ControlPlane, free_ports
from tests.apiserver.chart import VALUES, render, without_workloads
from tests.apiserver.cluster import KINDS, Cluster, Raw
from tests.apiserver.finetunejobs import SPEC
from tests.apiserver.operator_process import USER, OperatorProcess
from tests.bench.scale.race import Contestant, Process
from tests.bench.scale.table import TRAINER, TUNESMITH
from tunesmith_operator.client import ApiResource
from tunesmith_operator.plan import KINDS as OUR_KINDS
from tunesmith_operator.plan.config import OperatorConfig
from tunesmith_operator.plan.types import Observed

PEERS = "peers"
"""Namespace of the accounts of Trainer's two managers."""
MANAGERS = ("trainer-controller-manager", "jobset-controller-manager")
PEER_USERS = tuple(f"system:serviceaccount:{PEERS}:{name}" for name in MANAGERS)
CONTAINER: Raw = {"name": "node", "image": "localhost/anything", "command": ["/bin/true"]}
ONE_CONTAINER: Raw = {"spec": {"restartPolicy": "Never", "containers": [CONTAINER]}}
RUNTIME: Raw = {
    "apiVersion": "trainer.kubeflow.org/v1alpha1",
    "kind": "ClusterTrainingRuntime",
    "metadata": {"name": "bench"},
    "spec": {
        "mlPolicy": {"numNodes": 1, "torch": {"numProcPerNode": "auto"}},
        "template": {
            "spec": {
                "replicatedJobs": [
                    {
                        "name": "node",
                        "template": {
                            "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
                            "spec": {"template": {"spec": {"containers": [CONTAINER]}}},
                        },
                    }
                ]
            }
        },
    },
}
"""A pod with a single container, as in Trainer's own runtime torch-distributed."""


def plain_jobs(name: str, template: Raw) -> Contestant:
    """Jobs without an operator."""

    def manifest(name: str) -> Raw:
        return {"kind": "Job", "metadata": {"name": name}, "spec": {"backoffLimit": 0, "template": template}}

    return Contestant(name, manifest, lambda job: _is_true(job, "Complete"))


def our_pod() -> Raw:
    """The pod template of a FineTuneJob, which has three containers."""
    metadata = {"name": "run", "namespace": "plain", "uid": "u", "generation": 1}
    config = OperatorConfig.model_validate(
        {"images": {"runtime": "localhost/anything"}, "store": {"uri": "s3://models"}}
    )
    resource = {"kind": "FineTuneJob", "metadata": metadata, "spec": SPEC}
    [job] = OUR_KINDS["FineTuneJob"].plan(resource, Observed(), datetime.now(UTC), config, lambda *_: "token").create
    template: Raw = job["spec"]["template"]
    return template


@contextmanager
def tunesmith(plane: ControlPlane, folder: Path) -> Iterator[Contestant]:
    """The operator as the chart runs it by default."""
    with leading_operator(plane, folder) as operator:
        yield Contestant(
            TUNESMITH,
            lambda name: {"kind": "FineTuneJob", "metadata": {"name": name}, "spec": SPEC},
            lambda resource: (resource.get("status") or {}).get("phase") == "Succeeded",
            [Process(operator.process.pid)],
            [USER],
        )
        assert not operator.complaints(), operator.complaints()[0]


def install_chart(plane: ControlPlane, cluster: Cluster) -> None:
    """Install the chart without its pods."""
    cluster.kubectl("apply", "--filename", "-", stdin=without_workloads(render(plane, VALUES)))
    cluster.until("the CRDs are served", lambda: _are_served(cluster))


@contextmanager
def leading_operator(plane: ControlPlane, folder: Path) -> Iterator[OperatorProcess]:
    """A leading operator with the chart's default limits and scope."""
    by_default: Raw = {"leaderElection": {}, "client": {}, "scope": {"namespaces": []}}
    operator = OperatorProcess(plane, folder, "operator-0", values=by_default)
    operator.start()
    try:
        Cluster(plane, urllib3.PoolManager(), "").until("the operator leads", operator.leads, seconds=120)
        yield operator
    finally:
        operator.stop()


@contextmanager
def trainer(plane: ControlPlane, cluster: Cluster, folder: Path) -> Iterator[Contestant]:
    """Kubeflow Trainer and JobSet as processes, with their default settings and webhooks."""
    ensure_programs(cache_paths(), list(MANAGERS))
    KINDS["TrainJob"] = ApiResource("trainer.kubeflow.org/v1alpha1", "trainjobs")  # type: ignore[index]
    _install_peers(plane, cluster)
    ports = free_ports(4)
    (folder / "jobset.json").write_text(json.dumps(_jobset_configuration(*ports[1:])))
    arguments = ([f"--webhook-server-port={ports[0]}"], [f"--config={folder / 'jobset.json'}"])
    running = [
        _start(plane, cluster, folder / name, name, given) for name, given in zip(MANAGERS, arguments, strict=True)
    ]
    try:
        _admit(plane, cluster, dict(zip(MANAGERS, ports[:2], strict=True)))
        cluster.until("Trainer's webhook admits a runtime", lambda: _is_admitted(cluster, RUNTIME), seconds=120)
        # The webhook rejects TrainJobs until its own cache has the runtime.
        trial = {"apiVersion": KINDS["TrainJob"].api_version, **_train_job("trial")}
        cluster.until(
            "Trainer's webhook admits a TrainJob",
            lambda: _is_admitted(cluster, trial, "--dry-run=server", "--namespace=default"),
            seconds=120,
        )
        yield Contestant(
            TRAINER,
            _train_job,
            lambda resource: _is_true(resource, "Complete"),
            [Process(process.pid) for process in running],
            PEER_USERS,
        )
    finally:
        for process in running:
            process.kill()
            process.wait()


def _train_job(name: str) -> Raw:
    return {"kind": "TrainJob", "metadata": {"name": name}, "spec": {"runtimeRef": {"name": "bench"}}}


def _install_peers(plane: ControlPlane, cluster: Cluster) -> None:
    """Install the CRDs, and accounts with all rights, because rights do not matter for the figures."""
    crds = (
        source_folder(cache_paths(), "trainer-controller-manager") / "manifests" / "base" / "crds",
        source_folder(cache_paths(), "jobset-controller-manager") / "config" / "components" / "crd" / "bases",
    )
    files = [str(path) for folder in crds for path in sorted(folder.glob("*_*.yaml"))]
    cluster.kubectl("create", *(f"--filename={path}" for path in files))
    cluster.until("the CRDs are served", lambda: _are_served(cluster))
    cluster.kubectl("create", "namespace", PEERS)
    for name in MANAGERS:
        cluster.kubectl("create", "serviceaccount", name, f"--namespace={PEERS}")
        account = f"--serviceaccount={PEERS}:{name}"
        cluster.kubectl("create", "clusterrolebinding", name, "--clusterrole=cluster-admin", account)


def _jobset_configuration(webhook: int, metrics: int, health: int) -> Raw:
    """JobSet's default configuration, on free ports and with our certificate."""
    return {
        "apiVersion": "config.jobset.x-k8s.io/v1alpha1",
        "kind": "Configuration",
        "leaderElection": {"leaderElect": False},
        "internalCertManagement": {"enable": False},
        "webhook": {"port": webhook},
        "metrics": {"bindAddress": f"127.0.0.1:{metrics}"},
        "health": {"healthProbeBindAddress": f"127.0.0.1:{health}"},
    }


def _start(
    plane: ControlPlane, cluster: Cluster, folder: Path, name: str, arguments: list[str]
) -> subprocess.Popen[bytes]:
    certificates = folder / "k8s-webhook-server" / "serving-certs"  # the default of controller-runtime, below $TMPDIR
    certificates.mkdir(parents=True)
    for ours, theirs in (("server.crt", "tls.crt"), ("server.key", "tls.key")):
        shutil.copy(plane.ca.parent / ours, certificates / theirs)
    token = cluster.kubectl("create", "token", name, f"--namespace={PEERS}", "--duration=2h").strip()
    config = folder / "kubeconfig"
    config.write_text(json.dumps(kubeconfig(plane.url, plane.ca.read_bytes(), {"token": token})))
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(folder), "KUBECONFIG": str(config), "HOME": str(folder)}
    with (folder / "log").open("wb") as log:
        return subprocess.Popen([plane.program(name), *arguments], env=environment, stdout=log, stderr=log)


def _admit(plane: ControlPlane, cluster: Cluster, ports: dict[str, int]) -> None:
    """Install their webhooks, called by URL. The webhooks for pods select pods of JobSets only."""
    files = {
        "trainer-controller-manager": Path("manifests", "base", "webhook", "manifests.yaml"),
        "jobset-controller-manager": Path("config", "components", "webhook", "manifests.yaml"),
    }
    bundle = base64.b64encode(plane.ca.read_bytes()).decode()
    for name, port in ports.items():
        text = (source_folder(cache_paths(), name) / files[name]).read_text()
        for configuration in yaml.safe_load_all(text):
            configuration["metadata"]["name"] = name
            for webhook in configuration["webhooks"]:
                path = webhook["clientConfig"]["service"]["path"]
                webhook["clientConfig"] = {"url": f"https://127.0.0.1:{port}{path}", "caBundle": bundle}
                if "pods" in webhook["rules"][0]["resources"]:
                    mine = {"key": "jobset.sigs.k8s.io/jobset-name", "operator": "Exists"}
                    webhook["objectSelector"] = {"matchExpressions": [mine]}
            cluster.kubectl("create", "--filename=-", stdin=json.dumps(configuration))


def _are_served(cluster: Cluster) -> bool:
    crds = json.loads(cluster.kubectl("get", "customresourcedefinitions", "--output=json"))["items"]
    return all(_is_true(crd, "Established") for crd in crds)


def _is_admitted(cluster: Cluster, manifest: Raw, *options: str) -> bool:
    """Whether the API server and the webhooks admit a manifest. Without `--dry-run` it then exists."""
    with suppress(AssertionError):
        cluster.kubectl("apply", "--filename=-", *options, stdin=json.dumps(manifest))
        return True
    return False


def _is_true(thing: Raw, condition: str) -> bool:
    conditions = (thing.get("status") or {}).get("conditions") or ()
    return any(each["type"] == condition and each["status"] == "True" for each in conditions)
