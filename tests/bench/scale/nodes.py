"""Fake nodes, on which pods run and end immediately. kwok plays the kubelets."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from devcluster.builds import ensure_programs
from devcluster.paths import cache_paths
from devcluster.standalone import ControlPlane, free_ports
from tests.apiserver.cluster import Cluster, administrator
from tests.apiserver.finetunejobs import MESSAGES

NODES = 20
TIME = "{{ Now | Quote }}"
RUNNING = f"running: {{startedAt: {TIME}}}"
CONDITIONS = "".join(
    f"- {{type: {name}, status: 'True', lastTransitionTime: {TIME}}}\n"
    for name in ("Initialized", "ContainersReady", "Ready")
)
Stage = dict[str, Any]


@contextmanager
def control_plane(*users: str) -> Iterator[ControlPlane]:
    """A control plane with a scheduler and fake nodes. The audit log has the requests of `users` only."""
    ensure_programs(cache_paths(), ["kwok"])
    policy = {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{"level": "Metadata", "users": list(users)}, {"level": "None"}],
    }
    with ControlPlane(
        with_scheduler=True,
        audit_policy=policy,
        # Debian's etcd is too old for streaming lists, which kwok's watches request. Nodes without heartbeats must stay
        # ready.
        apiserver_options={
            "feature-gates": "WatchList=false",
            "disable-admission-plugins": "TaintNodesByCondition",
        },
        controller_manager_options={"controllers": "*,-node-lifecycle-controller"},
    ) as plane:
        cluster = Cluster(plane, administrator(plane), "default")
        for number in range(NODES):
            cluster.request("POST", "/api/v1/nodes", node(f"fake-{number}"))
        with kwok(plane):
            yield plane


@contextmanager
def kwok(plane: ControlPlane) -> Iterator[None]:
    """Run kwok, which sets the status of the pods of all nodes."""
    config = plane.directory / "kwok.yaml"
    config.write_text("\n---\n".join(map(json.dumps, (stay(), run(), end(), leave()))))
    command = [plane.program("kwok"), f"--kubeconfig={plane.kubeconfig}", f"--config={config}", "--manage-all-nodes"]
    command += [f"--server-address=127.0.0.1:{free_ports(1)[0]}", "--node-lease-duration-seconds=0"]
    with (plane.directory / "kwok.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=plane.directory, env=_environment(plane.directory)
        )
    try:
        yield
        assert process.poll() is None, (plane.directory / "kwok.log").read_text()[-2000:]
    finally:
        process.kill()
        process.wait()


def node(name: str) -> dict[str, Any]:
    """A node with room for everything."""
    room = {"cpu": "10000", "memory": "100Ti", "ephemeral-storage": "100Ti", "pods": "10000", "nvidia.com/gpu": "10000"}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "played by kwok"}
    status = {"capacity": room, "allocatable": room, "conditions": [ready]}
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "status": status}


def stay() -> Stage:
    """A stage without effect: kwok manages no nodes without a stage for them."""
    stage = leave()
    stage["metadata"]["name"] = "node-stays"
    stage["spec"]["resourceRef"]["kind"] = "Node"
    return stage


def run() -> Stage:
    """A scheduled pod runs, and its init containers have ended with the reports of ours."""
    text = f"""
phase: Running
startTime: {TIME}
conditions:
{CONDITIONS}
initContainerStatuses:
{{{{ range .spec.initContainers }}}}
- {_container("true")}
  {{{{ if eq .restartPolicy "Always" }}}}
  state: {{{RUNNING}}}
  {{{{ else }}}}
  state: {{terminated: {_ended()}}}
  {{{{ end }}}}
{{{{ end }}}}
containerStatuses:
{{{{ range .spec.containers }}}}
- {_container("true")}
  state: {{{RUNNING}}}
{{{{ end }}}}
"""
    return _stage("pod-runs", text, ("status.phase", "In", ["Pending"]))


def end() -> Stage:
    """A running pod of a Job succeeds."""
    text = f"""
phase: Succeeded
containerStatuses:
{{{{ range .spec.containers }}}}
- {_container("false")}
  state: {{terminated: {_ended()}}}
{{{{ end }}}}
"""
    running, of_job = ("status.phase", "In", ["Running"]), ("metadata.ownerReferences.[].kind", "In", ["Job"])
    return _stage("pod-ends", text, running, of_job)


def leave() -> Stage:
    """A pod with a deletion timestamp is removed."""
    stage = _stage("pod-leaves", "")
    stage["spec"]["selector"]["matchExpressions"] = [{"key": ".metadata.deletionTimestamp", "operator": "Exists"}]
    stage["spec"]["next"] = {"delete": True}
    return stage


def _stage(name: str, status: str, *when: tuple[str, str, list[str]]) -> Stage:
    conditions = [{"key": f".{key}", "operator": operator, "values": values} for key, operator, values in when]
    stays = {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"}
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": "Pod"},
            "selector": {"matchExpressions": [stays, *conditions]},
            "next": {"statusTemplate": status},
        },
    }


def _container(ready: str) -> str:
    return f"""name: {{{{ .name | Quote }}}}
  image: {{{{ .image | Quote }}}}
  imageID: ""
  restartCount: 0
  ready: {ready}
  started: {ready}"""


def _ended() -> str:
    """The termination of a container, with the report that belongs to its name."""
    messages = "".join(
        f"{{{{ if eq .name {json.dumps(name)} }}}}, message: {json.dumps(message)}{{{{ end }}}}"
        for name, message in MESSAGES.items()
    )
    return f"{{exitCode: 0, reason: Completed, startedAt: {TIME}, finishedAt: {TIME}{messages}}}"


def _environment(folder: Path) -> dict[str, str]:
    return {"HOME": str(folder), "PATH": "/usr/bin:/bin"}
