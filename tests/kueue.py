"""The real Kueue, as a process beside the cluster: its CRDs, its controller, and a ClusterQueue to wait in.

Its webhooks serve nobody (no configuration names them), so Jobs must be made suspended by who makes them.
"""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import yaml

from devcluster.builds import ensure_programs, source_folder
from devcluster.paths import Paths
from devcluster.standalone import free_ports
from devcluster.toolchain import ensure_go
from tests.established import until_established
from tunesmith_operator.plan.types import Raw

GROUP = "kueue.x-k8s.io/v1beta1"
READY_SECONDS = 60


@contextmanager
def kueue(paths: Paths, kubeconfig: Path, folder: Path) -> Iterator[None]:
    """Run Kueue, which is built if necessary, for the cluster of `kubeconfig`. Its log is `folder`/kueue.log."""
    ensure_programs(paths, ["kueue"])
    kubectl = [paths.program("kubectl"), "--kubeconfig", str(kubeconfig)]
    crds = source_folder(paths, "kueue") / "config" / "components" / "crd" / "bases"
    _run(*kubectl, "apply", "--server-side", "--filename", str(crds))
    until_established(partial(_run, *kubectl), "--filename", str(crds))
    health = _configure(folder)
    command = [paths.program("kueue"), f"--kubeconfig={kubeconfig}", f"--config={folder / 'kueue.json'}"]
    command += ["--feature-gates=VisibilityOnDemand=false", "--zap-log-level=info"]
    with (folder / "kueue.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            _until_ready(process, health, folder / "kueue.log")
            yield
            # While Kueue runs, because its finalizers would keep Workloads and their namespaces.
            _run(*kubectl, "delete", "--timeout=120s", "--filename", str(crds))
        finally:
            process.terminate()
            process.wait(timeout=30)


def queues(name: str, quotas: Mapping[str, str], namespace: str) -> list[Raw]:
    """A ClusterQueue in which higher priorities preempt lower priorities, and the LocalQueue `name` that leads to it."""
    flavor = {"name": name, "resources": [{"name": device, "nominalQuota": quota} for device, quota in quotas.items()]}
    return [
        {"apiVersion": GROUP, "kind": "ResourceFlavor", "metadata": {"name": name}, "spec": {}},
        {
            "apiVersion": GROUP,
            "kind": "ClusterQueue",
            "metadata": {"name": name},
            "spec": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "preemption": {"withinClusterQueue": "LowerPriority"},
                "resourceGroups": [{"coveredResources": list(quotas), "flavors": [flavor]}],
            },
        },
        {
            "apiVersion": GROUP,
            "kind": "LocalQueue",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"clusterQueue": name},
        },
    ]


def _configure(folder: Path) -> str:
    """Write Kueue's configuration file and a certificate for its webhooks. Return the URL of its readiness."""
    health, webhook = free_ports(2)
    configuration = {
        "apiVersion": "config.kueue.x-k8s.io/v1beta1",
        "kind": "Configuration",
        "namespace": "kueue-system",
        "health": {"healthProbeBindAddress": f"127.0.0.1:{health}"},
        "metrics": {"bindAddress": "0"},
        "webhook": {"host": "127.0.0.1", "port": webhook, "certDir": str(folder)},
        "internalCertManagement": {"enable": False},
        "leaderElection": {"leaderElect": False},
        "integrations": {"frameworks": ["batch/job"]},
    }
    (folder / "kueue.json").write_text(json.dumps(configuration))
    keys = ("-newkey", "rsa:2048", "-nodes", "-keyout", str(folder / "tls.key"), "-out", str(folder / "tls.crt"))
    _run("openssl", "req", "-x509", *keys, "-days", "2", "-subj", "/CN=kueue")
    return f"http://127.0.0.1:{health}/readyz"


def _until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + READY_SECONDS
    while not _answers(url):
        output = log.read_text(errors="replace")[-2000:]
        assert process.poll() is None, f"Kueue has ended: {output}"
        assert time.monotonic() < end, f"Kueue is not ready after {READY_SECONDS} s: {output}"
        time.sleep(0.2)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command[:4])}: {done.stderr}"


def workload_crd(paths: Paths, release: str, version: str) -> Raw:
    """The CRD of Workloads of a Kueue release, serving `version` only."""
    download = [ensure_go(paths), "mod", "download", "-json", f"sigs.k8s.io/kueue@{release}"]
    done = subprocess.run(download, cwd=paths.bin, capture_output=True, text=True, check=True)
    bases = Path(json.loads(done.stdout)["Dir"]) / "config" / "components" / "crd" / "bases"
    crd: Raw = yaml.safe_load((bases / "kueue.x-k8s.io_workloads.yaml").read_text())
    served = next(each for each in crd["spec"]["versions"] if each["name"] == version)
    crd["spec"]["versions"] = [{**served, "served": True, "storage": True, "deprecated": False}]
    return crd
