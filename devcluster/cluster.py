"""Start, inspect and remove the cluster."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from devcluster import containers, mounts, network
from devcluster.access import ensure_s3_credentials
from devcluster.commands import run
from devcluster.components import addresses, control_plane, node, services
from devcluster.errors import ClusterError, ComponentEnded
from devcluster.paths import Paths
from devcluster.pki import CLIENTS, Authority, Client
from devcluster.processes import Component, Supervisor, wait_until
from devcluster.progress import print_line, step

SERVER_NAMES = (
    *("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"),
    *("kubernetes.default.svc.cluster.local", addresses.NODE),
    *(addresses.LOOPBACK, addresses.HOST, addresses.FIRST_SERVICE),
)
NODE_CLIENT = Client(f"system:node:{addresses.NODE}", "system:nodes")
PATIENCE_SECONDS = 15.0
NODE_SECONDS = 120.0

# Components that can fail to start on the data of their last run.
HOLDS_DATA = ("etcd", "containerd")
ATTEMPTS = 2
# A rebuild keeps the user's buckets with their keys, and the record of the machine's state before the cluster.
KEPT_BY_REBUILD = ("s3", "s3-credentials", "before.json")

# CoreDNS runs outside the cluster and reads Services as the user system:coredns.
MANIFESTS: list[dict[str, object]] = [
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "system:coredns"},
        "rules": [
            {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        ],
    },
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "system:coredns"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"},
        "subjects": [{"kind": "User", "name": "system:coredns", "apiGroup": "rbac.authorization.k8s.io"}],
    },
]


@dataclass(frozen=True)
class Stage:
    """A component in the start order, with the actions before its start and once it is ready."""

    component: Component
    before: Callable[[], None] = lambda: None
    after: Callable[[], None] = lambda: None


def supervisor(paths: Paths) -> Supervisor:
    return Supervisor(paths.run, paths.logs)


def stages(paths: Paths, access_key: str, secret_key: str) -> list[Stage]:
    """All components in start order."""
    authority = Authority(paths.pki)
    settings = _settings(paths, authority)
    return [
        Stage(services.registry(paths)),
        Stage(services.s3(paths, access_key, secret_key), before=lambda: _make_folder(paths.cluster / "s3")),
        Stage(control_plane.etcd(paths, settings)),
        Stage(control_plane.apiserver(paths, settings), after=lambda: _apply(paths, MANIFESTS)),
        Stage(control_plane.controller_manager(paths, settings)),
        Stage(control_plane.scheduler(paths, settings)),
        Stage(services.coredns(paths)),
        Stage(
            node.containerd(paths),
            before=lambda: _clear_containerd_state(paths),
            after=lambda: containers.import_pause_image(paths),
        ),
        Stage(node.kubelet(paths, authority)),
        Stage(node.kube_proxy(paths)),
    ]


def up(paths: Paths) -> None:
    """Start the missing components and restart the broken ones.

    The cluster is rebuilt if a component cannot start on its data, but not if a component is only slow.
    """
    had_state = (paths.cluster / "etcd").exists()
    try:
        _bring_up(paths)
    except ComponentEnded as error:
        if not had_state or error.component not in HOLDS_DATA:
            raise
        print_line(
            f"{error}\nIts data are broken: the cluster is rebuilt. Images in the registry and buckets are kept."
        )
        take_down(paths, keep=KEPT_BY_REBUILD)
        _bring_up(paths)


def take_down(paths: Paths, keep: tuple[str, ...] = ()) -> None:
    """End every process of the cluster, remove its mounts, network and cgroups, and delete its state except `keep`."""
    if not paths.cluster.exists():
        return
    remembered = paths.cluster / "before.json"
    before = network.remember(remembered) if remembered.exists() else None
    with step("stop the node"):
        for name in ("kubelet", "kube-proxy"):
            supervisor(paths).stop(name)
        containers.end_containers(paths.containerd_socket)
        supervisor(paths).stop("containerd")
        containers.end_containers(paths.containerd_socket)  # containerd may have started clean-up processes meanwhile
    with step("stop the control plane"):
        for pid_file in sorted(paths.run.glob("*.pid"), key=lambda file: file.stem == "etcd"):
            supervisor(paths).stop(pid_file.stem, 3.0)
    with step("remove mounts, network and state"):
        mounts.unmount_below(paths.cluster)
        mounts.remove_pod_cgroups()
        if before:
            network.restore(before)
            _delete([Path(folder) for folder in network.STRAY_FOLDERS if folder not in before.folders])
        _delete([path for path in paths.cluster.iterdir() if path.name not in keep])
        if not keep:
            paths.cluster.rmdir()


def health(paths: Paths) -> list[tuple[str, str]]:
    """The complaint about each component, then about the node. The empty string means healthy."""
    access_key, secret_key = ensure_s3_credentials(paths.s3_credentials)
    components = [stage.component for stage in stages(paths, access_key, secret_key)]
    found = [(component.name, supervisor(paths).complaint(component)) for component in components]
    return [*found, ("node", "" if node_is_ready(paths) else "not Ready")]


def node_is_ready(paths: Paths) -> bool:
    try:
        answer = json.loads(kubectl(paths, "get", "node", addresses.NODE, "--output=json"))
    except ClusterError:
        return False
    conditions = answer["status"].get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def kubectl(paths: Paths, *arguments: str, stdin: str | None = None) -> str:
    return run([paths.program("kubectl"), f"--kubeconfig={paths.kubeconfig}", *arguments], stdin=stdin)


def _bring_up(paths: Paths) -> None:
    access_key, secret_key = ensure_s3_credentials(paths.s3_credentials)
    _write_identities(paths)
    network.remember(paths.cluster / "before.json")
    network.prepare()
    for stage in stages(paths, access_key, secret_key):
        _ensure(paths, stage)
    if not node_is_ready(paths):
        with step("wait for the node"):
            if not wait_until(lambda: node_is_ready(paths), NODE_SECONDS):
                log = supervisor(paths).log_file("kubelet")
                raise ClusterError(f"the node is not Ready after {NODE_SECONDS:.0f}s; see {log}")


def _ensure(paths: Paths, stage: Stage) -> None:
    component, processes = stage.component, supervisor(paths)
    first = not processes.pid_file(component.name).exists()
    complaint = _lasting_complaint(processes, component)
    if not complaint:
        return
    with step(f"start {component.name}" if first else f"start {component.name} again ({complaint})"):
        processes.stop(component.name, component.stop_seconds)
        stage.before()
        _start(processes, component)
        stage.after()


def _start(processes: Supervisor, component: Component) -> None:
    """Start a component, at most twice: some programs end if a dependency is slow to answer."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            processes.start(component)
            return processes.wait(component)
        except ComponentEnded:
            if attempt == ATTEMPTS:
                raise


def _lasting_complaint(processes: Supervisor, component: Component) -> str:
    """The complaint that persists. On a busy machine a single probe may fail."""
    if processes.record(component.name):
        wait_until(lambda: not component.ready(), PATIENCE_SECONDS)
    return processes.complaint(component)


def _settings(paths: Paths, authority: Authority) -> control_plane.ControlPlaneSettings:
    return control_plane.ControlPlaneSettings(
        directory=paths.cluster,
        authority=authority,
        service_network=addresses.SERVICE_NETWORK,
        etcd_port=addresses.ETCD_PORT,
        apiserver_port=addresses.APISERVER_PORT,
        controller_manager_port=addresses.CONTROLLER_MANAGER_PORT,
        scheduler_port=addresses.SCHEDULER_PORT,
        address=addresses.HOST,
    )


def _write_identities(paths: Paths) -> None:
    authority = Authority(paths.pki)
    settings = _settings(paths, authority)
    authority.create(SERVER_NAMES, {**CLIENTS, "kubelet": NODE_CLIENT})
    authority.write_kubeconfig(paths.kubeconfig, "admin", settings.url)
    settings.write_kubeconfigs()
    for client in ("kubelet", "kube-proxy", "coredns"):
        authority.write_kubeconfig(settings.kubeconfig(client), client, settings.url)


def _apply(paths: Paths, manifests: list[dict[str, object]]) -> None:
    document = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
    kubectl(paths, "apply", "--server-side", "--filename=-", stdin=document)


def _clear_containerd_state(paths: Paths) -> None:
    """Delete containerd's volatile folder if no process or mount uses it, as after a reboot."""
    state = node.containerd_state(paths)
    if not containers.shims(paths.containerd_socket) and not mounts.mounts_below(state):
        _delete([state])


def _make_folder(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)


def _delete(paths: list[Path]) -> None:
    """Delete files and folders, but never across a mount."""
    for path in paths:
        if mounts.mounts_below(path):
            raise ClusterError(f"{path} is not deleted: there are mounts below it (`findmnt` lists them)")
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
