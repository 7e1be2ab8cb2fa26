"""A real Kubernetes API for tests: etcd, kube-apiserver and kube-controller-manager, without a node.

    with ControlPlane() as cluster:
        subprocess.run([cluster.program("kubectl"), "--kubeconfig", str(cluster.kubeconfig), "get", "namespaces"])

Jobs make pods, owners' children are garbage-collected, namespaces end; but no pod ever runs.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from devcluster.builds import kubernetes_folder
from devcluster.components import control_plane as parts
from devcluster.components.flags import Value
from devcluster.errors import ClusterError
from devcluster.paths import Paths, cache_paths
from devcluster.pki import CLIENTS, Authority
from devcluster.processes import Component, Record, Supervisor, identify, is_alive

PREFIX = "tunesmith-controlplane-"
PORTS = range(20_000, 30_000)
"""Below node ports, and those from which the kernel takes one for a program that asks for any."""
AUDIT_EVERYTHING: dict[str, object] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


@dataclass
class ControlPlane:
    """A context manager: servers on free ports of 127.0.0.1 and files in a temporary folder, gone when it ends.

    `audit_policy`, for example AUDIT_EVERYTHING, turns on the audit log (`audit_log`, a JSON event in each line).
    `apiserver_options` and `controller_manager_options` add or replace flags.
    The programs must have been built: `python3 -m devcluster tools` does that without starting anything.
    """

    with_scheduler: bool = False
    audit_policy: Mapping[str, object] | None = None
    apiserver_options: Mapping[str, Value] = field(default_factory=dict)
    controller_manager_options: Mapping[str, Value] = field(default_factory=dict)
    paths: Paths = field(default_factory=lambda: version_under_test(cache_paths()))

    directory: Path = field(init=False)
    url: str = field(init=False)

    def __enter__(self) -> Self:
        sweep()
        memory = Path("/dev/shm")
        self.directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=memory if os.access(memory, os.W_OK) else None))
        owner = identify(os.getpid())
        assert owner is not None
        Record(owner, "").write(self.directory / "owner")
        self._components: dict[str, Component] = {}
        self._supervisor = Supervisor(self.directory / "run", self.directory / "logs")
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.directory / "admin.kubeconfig"

    @property
    def ca(self) -> Path:
        return self.directory / "pki" / "ca.crt"

    @property
    def audit_log(self) -> Path:
        return self.directory / "audit.jsonl"

    def program(self, name: str) -> str:
        """The full path of kubectl, helm and the like."""
        return self.paths.program(name)

    def log(self, name: str) -> str:
        """The output of a component since its last start."""
        return self._supervisor.log_file(name).read_text(errors="replace")

    def stop_component(self, name: str, seconds: float = 1.0) -> None:
        """End a component, for example to test a client without an API server. It is killed after so many seconds,
        because an API server with open watches ends slowly."""
        self._supervisor.stop(name, seconds)

    def start_component(self, name: str) -> None:
        """Restart a component on the same port."""
        component = self._components[name]
        self._supervisor.start(component)
        self._supervisor.wait(component)

    def restart_apiserver(self) -> None:
        self.stop_component("kube-apiserver")
        self.start_component("kube-apiserver")

    def stop(self) -> None:
        """End every process and delete every file."""
        _remove(self.directory)

    def _start(self) -> None:
        settings = self._settings()
        self.url = settings.url
        settings.authority.create(("localhost", parts.LOOPBACK, "kubernetes.default.svc"), CLIENTS)
        settings.authority.write_kubeconfig(self.kubeconfig, "admin", settings.url)
        settings.write_kubeconfigs()
        clients = [parts.controller_manager(self.paths, settings)]
        clients += [parts.scheduler(self.paths, settings)] if self.with_scheduler else []
        for together in ([parts.etcd(self.paths, settings), parts.apiserver(self.paths, settings)], clients):
            for component in together:
                self._components[component.name] = component
                self._supervisor.start(component)
            for component in together:
                self._supervisor.wait(component)

    def _settings(self) -> parts.ControlPlaneSettings:
        etcd, apiserver, controller_manager, scheduler = free_ports(4)
        return parts.ControlPlaneSettings(
            directory=self.directory,
            authority=Authority(self.directory / "pki"),
            service_network="10.96.0.0/16",
            etcd_port=etcd,
            apiserver_port=apiserver,
            controller_manager_port=controller_manager,
            scheduler_port=scheduler,
            apiserver_options={**self._audit_options(), **self.apiserver_options},
            controller_manager_options=self.controller_manager_options,
        )

    def _audit_options(self) -> dict[str, Value]:
        if self.audit_policy is None:
            return {}
        policy = self.directory / "audit-policy.json"
        policy.write_text(json.dumps(self.audit_policy))
        return {"audit-policy-file": policy, "audit-log-path": self.audit_log, "audit-log-mode": "blocking"}


def version_under_test(paths: Paths) -> Paths:
    """`paths` with the servers of the version in $TUNESMITH_TEST_KUBERNETES, if set.

    Raises ClusterError if that version is not built.
    """
    version = os.environ.get("TUNESMITH_TEST_KUBERNETES")
    if not version:
        return paths
    folder = kubernetes_folder(version)
    if not (paths.bin / folder).is_dir():
        raise ClusterError(f"Kubernetes {version} is not built; run `python3 -m devcluster tools {folder}`")
    return replace(paths, programs_first=folder)


def sweep() -> None:
    """Remove the control planes of killed owners."""
    for parent in {Path("/dev/shm"), Path(tempfile.gettempdir())}:
        for directory in parent.glob(f"{PREFIX}*"):
            owner = Record.read(directory / "owner")
            if owner and not is_alive(owner.identity):
                _remove(directory)


def _remove(directory: Path) -> None:
    supervisor = Supervisor(directory / "run", directory / "logs")
    running = sorted(
        supervisor.run.glob("*.pid"), key=lambda path: path.stem == "etcd"
    )  # etcd last, because the others depend on it
    for pid_file in running:
        supervisor.stop(pid_file.stem, 0.0)  # its data are deleted, so it need not finish
    shutil.rmtree(directory)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that are free now, and that the kernel gives to no other program meanwhile."""
    sockets: list[socket.socket] = []
    while len(sockets) < count:
        listener = socket.socket()
        try:
            listener.bind((parts.LOOPBACK, random.SystemRandom().choice(PORTS)))
        except OSError:
            listener.close()
        else:
            sockets.append(listener)
    ports: list[int] = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports
