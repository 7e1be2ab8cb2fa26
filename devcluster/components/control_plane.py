"""etcd, kube-apiserver, kube-controller-manager and kube-scheduler, for the cluster and for tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from devcluster.components.flags import Value, flags
from devcluster.paths import Paths
from devcluster.pki import Authority
from devcluster.probes import Http
from devcluster.processes import Component

LOOPBACK = "127.0.0.1"

# A busy test or benchmark would measure nothing but the stock limits (20 and 50 requests a second).
CLIENT_QPS = 500
CLIENT_BURST = 1000


@dataclass(frozen=True)
class ControlPlaneSettings:
    """Files and ports of a control plane.

    The API server listens on `address` and advertises it as the endpoint of the Service `kubernetes`.
    """

    directory: Path
    authority: Authority
    service_network: str
    etcd_port: int
    apiserver_port: int
    controller_manager_port: int
    scheduler_port: int
    address: str = LOOPBACK
    apiserver_options: Mapping[str, Value] = field(default_factory=dict)
    controller_manager_options: Mapping[str, Value] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"https://{self.address}:{self.apiserver_port}"

    def kubeconfig(self, client: str) -> Path:
        return self.directory / f"{client}.kubeconfig"

    def write_kubeconfigs(self) -> None:
        for client in ("controller-manager", "scheduler"):
            self.authority.write_kubeconfig(self.kubeconfig(client), client, self.url)


def etcd(paths: Paths, settings: ControlPlaneSettings) -> Component:
    authority = settings.authority
    url = f"https://{LOOPBACK}:{settings.etcd_port}"
    tls = (authority.ca, authority.certificate("apiserver-client"), authority.key("apiserver-client"))
    return Component(
        name="etcd",
        argv=flags(
            paths.program("etcd"),
            {
                "data-dir": settings.directory / "etcd",
                "listen-client-urls": url,
                "advertise-client-urls": url,
                "listen-peer-urls": f"http://{LOOPBACK}:0",
                "cert-file": authority.certificate("server"),
                "key-file": authority.key("server"),
                "trusted-ca-file": authority.ca,
                "client-cert-auth": True,
                "auto-compaction-retention": "1",
                "logger": "zap",
                "log-level": "warn",
            },
        ),
        ready=Http(f"{url}/health", *tls),
        ports=((LOOPBACK, settings.etcd_port),),
    )


def apiserver(paths: Paths, settings: ControlPlaneSettings) -> Component:
    """The API server with the stock admission plugins, including PodSecurity and ServiceAccount."""
    authority = settings.authority
    issuer = "https://kubernetes.default.svc.cluster.local"
    # Kubernetes 1.37 refuses a loopback address as the endpoint of the Service `kubernetes`, which only pods use.
    endpoints: dict[str, Value] = {"endpoint-reconciler-type": "none"} if settings.address == LOOPBACK else {}
    return Component(
        name="kube-apiserver",
        argv=flags(
            paths.program("kube-apiserver"),
            {
                "advertise-address": settings.address,
                "bind-address": settings.address,
                "secure-port": settings.apiserver_port,
                "etcd-servers": f"https://{LOOPBACK}:{settings.etcd_port}",
                "etcd-cafile": authority.ca,
                "etcd-certfile": authority.certificate("apiserver-client"),
                "etcd-keyfile": authority.key("apiserver-client"),
                "client-ca-file": authority.ca,
                "tls-cert-file": authority.certificate("server"),
                "tls-private-key-file": authority.key("server"),
                "kubelet-client-certificate": authority.certificate("apiserver-client"),
                "kubelet-client-key": authority.key("apiserver-client"),
                "kubelet-certificate-authority": authority.ca,
                "kubelet-preferred-address-types": "InternalIP",
                "service-account-issuer": issuer,
                "service-account-key-file": authority.key("service-account"),
                "service-account-signing-key-file": authority.key("service-account"),
                "service-cluster-ip-range": settings.service_network,
                "authorization-mode": "Node,RBAC",
                "allow-privileged": True,
                "profiling": False,
                **endpoints,
                **settings.apiserver_options,
            },
        ),
        ready=Http(f"{settings.url}/readyz", authority.ca),
        ports=((settings.address, settings.apiserver_port),),
        stop_seconds=20,
    )


def controller_manager(paths: Paths, settings: ControlPlaneSettings) -> Component:
    authority = settings.authority
    return Component(
        name="kube-controller-manager",
        argv=flags(
            paths.program("kube-controller-manager"),
            {
                "kubeconfig": settings.kubeconfig("controller-manager"),
                "bind-address": LOOPBACK,
                "secure-port": settings.controller_manager_port,
                "service-account-private-key-file": authority.key("service-account"),
                "root-ca-file": authority.ca,
                "use-service-account-credentials": True,
                "leader-elect": False,
                "kube-api-qps": CLIENT_QPS,
                "kube-api-burst": CLIENT_BURST,
                "concurrent-job-syncs": 20,
                **settings.controller_manager_options,
            },
        ),
        ready=Http(f"https://{LOOPBACK}:{settings.controller_manager_port}/healthz"),
        ports=((LOOPBACK, settings.controller_manager_port),),
    )


def scheduler(paths: Paths, settings: ControlPlaneSettings) -> Component:
    config = settings.directory / "scheduler.json"
    document = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": {"leaderElect": False},
        "clientConnection": {
            "kubeconfig": str(settings.kubeconfig("scheduler")),
            "qps": CLIENT_QPS,
            "burst": CLIENT_BURST,
        },
    }
    options: dict[str, Value] = {"config": config, "bind-address": LOOPBACK, "secure-port": settings.scheduler_port}
    return Component(
        name="kube-scheduler",
        argv=flags(paths.program("kube-scheduler"), options),
        ready=Http(f"https://{LOOPBACK}:{settings.scheduler_port}/healthz"),
        files={config: json.dumps(document, indent=2)},
        ports=((LOOPBACK, settings.scheduler_port),),
    )
