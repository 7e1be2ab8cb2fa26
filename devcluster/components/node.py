"""The components of the node: containerd, kubelet, kube-proxy."""

from __future__ import annotations

import json
import os
from pathlib import Path

from devcluster.components import addresses
from devcluster.components.flags import Value, flags
from devcluster.paths import Paths
from devcluster.pki import Authority
from devcluster.probes import Http, UnixSocket
from devcluster.processes import Component

PAUSE_IMAGE = "localhost/tunesmith-pause:1"

# containerd is the only component that uses the internet: it pulls images, possibly through a proxy.
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE")

CONTAINERD_CONFIG = """\
version = 2
root = "{root}"
state = "{state}"
# Without CAP_SYS_RESOURCE (a container, a sandbox) an OOM score can't be lowered.
oom_score = 0

[grpc]
address = "{socket}"

[plugins."io.containerd.internal.v1.opt"]
path = "{root}/opt"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
restrict_oom_score_adj = true
disable_tcp_service = true
netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{cni_bin}"
conf_dir = "{cni_conf}"

[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "{registries}"

[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = "{runc}"
Root = "{state}/runc"
SystemdCgroup = false
"""


def containerd_state(paths: Paths) -> Path:
    """containerd's volatile folder: tasks, network namespaces. It is stale once its processes and mounts are gone."""
    return paths.run / "containerd"


def containerd(paths: Paths) -> Component:
    config, conf = paths.cluster / "containerd.toml", paths.cluster / "cni"
    registries = paths.cluster / "registries"
    text = CONTAINERD_CONFIG.format(
        root=paths.cluster / "containerd",
        state=containerd_state(paths),
        socket=paths.containerd_socket,
        pause=PAUSE_IMAGE,
        cni_bin=paths.debian / "usr/lib/cni",
        cni_conf=conf,
        registries=registries,
        runc=paths.debian / "usr/sbin/runc",
    )
    return Component(
        name="containerd",
        argv=(paths.program("containerd"), "--config", str(config)),
        ready=UnixSocket(paths.containerd_socket),
        files={
            config: text,
            conf / "tunesmith.conflist": json.dumps(cni_network(paths), indent=2),
            registries / addresses.REGISTRY / "hosts.toml": (
                f'server = "http://{addresses.LOOPBACK}:{addresses.REGISTRY_PORT}"\n'
            ),
        },
        environment={
            "PATH": paths.search_path(),
            **{name: os.environ[name] for name in PROXY_VARIABLES if name in os.environ},
        },
    )


def cni_network(paths: Paths) -> dict[str, object]:
    """The network of the pods: a single bridge, whose address is the host's."""
    return {
        "cniVersion": "0.4.0",
        "name": "tunesmith",
        "plugins": [
            {
                "type": "bridge",
                "bridge": addresses.BRIDGE,
                "isGateway": True,
                "ipMasq": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(paths.run / "addresses"),
                    "ranges": [[{"subnet": addresses.POD_NETWORK}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
            # Accepts packets of pods where the firewall forwards none by default, as on a machine with Docker.
            {"type": "firewall", "backend": "iptables"},
        ],
    }


def kubelet(paths: Paths, authority: Authority) -> Component:
    config, root = paths.cluster / "kubelet.json", paths.cluster / "kubelet"
    document = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": addresses.HOST,
        "port": addresses.KUBELET_PORT,
        "healthzPort": addresses.KUBELET_HEALTH_PORT,
        "tlsCertFile": str(authority.certificate("server")),
        "tlsPrivateKeyFile": str(authority.key("server")),
        "authentication": {
            "x509": {"clientCAFile": str(authority.ca)},
            "webhook": {"enabled": True},
            "anonymous": {"enabled": False},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{paths.containerd_socket}",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [addresses.HOST],
        "clusterDomain": addresses.CLUSTER_DOMAIN,
        "podLogsDir": str(paths.logs / "pods"),
        "volumePluginDir": str(root / "volume-plugins"),
        "maxPods": 200,
        "serializeImagePulls": False,
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
    }
    options: dict[str, Value] = {
        "config": config,
        "kubeconfig": paths.cluster / "kubelet.kubeconfig",
        "root-dir": root,
        "cert-dir": root / "pki",
        "hostname-override": addresses.NODE,
        "node-ip": addresses.HOST,
    }
    return Component(
        name="kubelet",
        argv=flags(paths.program("kubelet"), options),
        ready=Http(f"http://{addresses.LOOPBACK}:{addresses.KUBELET_HEALTH_PORT}/healthz"),
        files={config: json.dumps(document, indent=2)},
        environment={"PATH": paths.search_path()},
        ports=(
            (addresses.HOST, addresses.KUBELET_PORT),
            (addresses.LOOPBACK, addresses.KUBELET_HEALTH_PORT),
        ),
    )


def kube_proxy(paths: Paths) -> Component:
    config = paths.cluster / "kube-proxy.json"
    document = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "hostnameOverride": addresses.NODE,
        "clusterCIDR": addresses.POD_NETWORK,
        "clientConnection": {"kubeconfig": str(paths.cluster / "kube-proxy.kubeconfig")},
        "healthzBindAddress": f"{addresses.LOOPBACK}:{addresses.PROXY_HEALTH_PORT}",
        "metricsBindAddress": f"{addresses.LOOPBACK}:{addresses.PROXY_METRICS_PORT}",
        # Do not change the machine's connection tracking.
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
    return Component(
        name="kube-proxy",
        argv=flags(paths.program("kube-proxy"), {"config": config}),
        ready=Http(f"http://{addresses.LOOPBACK}:{addresses.PROXY_HEALTH_PORT}/healthz"),
        files={config: json.dumps(document, indent=2)},
        environment={"PATH": paths.search_path()},
        ports=(
            (addresses.LOOPBACK, addresses.PROXY_HEALTH_PORT),
            (addresses.LOOPBACK, addresses.PROXY_METRICS_PORT),
        ),
    )
