"""Services beside Kubernetes, which run on the host: DNS of the cluster, an image registry, an S3 server."""

from __future__ import annotations

import json

from devcluster.components import addresses
from devcluster.paths import Paths
from devcluster.probes import Http, Tcp
from devcluster.processes import Component

COREFILE = """\
.:{port} {{
    bind {host}
    ready {loopback}:{ready}
    errors
    cache 5
    loadbalance
    kubernetes {domain} in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 5
        fallthrough in-addr.arpa ip6.arpa
    }}
    forward . /etc/resolv.conf
}}
"""


def coredns(paths: Paths) -> Component:
    config = paths.cluster / "Corefile"
    text = COREFILE.format(
        port=addresses.DNS_PORT,
        host=addresses.HOST,
        loopback=addresses.LOOPBACK,
        ready=addresses.DNS_READY_PORT,
        domain=addresses.CLUSTER_DOMAIN,
        kubeconfig=paths.cluster / "coredns.kubeconfig",
    )
    return Component(
        name="coredns",
        argv=(paths.program("coredns"), "-conf", str(config)),
        ready=Http(f"http://{addresses.LOOPBACK}:{addresses.DNS_READY_PORT}/ready"),
        files={config: text},
        ports=((addresses.HOST, addresses.DNS_PORT), (addresses.LOOPBACK, addresses.DNS_READY_PORT)),
    )


def registry(paths: Paths) -> Component:
    config = paths.cluster / "registry.json"
    address = f"{addresses.LOOPBACK}:{addresses.REGISTRY_PORT}"
    document = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(paths.registry)}, "delete": {"enabled": True}},
        "http": {"addr": address},
    }
    return Component(
        name="registry",
        argv=(paths.program("docker-registry"), "serve", str(config)),
        ready=Http(f"http://{address}/v2/"),
        files={config: json.dumps(document, indent=2)},
        ports=((addresses.LOOPBACK, addresses.REGISTRY_PORT),),
    )


def s3(paths: Paths, access_key: str, secret_key: str) -> Component:
    """versitygw over a folder. The keys are in the environment, because every user can read a command line."""
    return Component(
        name="s3",
        argv=(
            *(paths.program("versitygw"), "--port", f"{addresses.HOST}:{addresses.S3_PORT}", "--region", "us-east-1"),
            *("--quiet", "posix", str(paths.cluster / "s3")),
        ),
        ready=Tcp(addresses.HOST, addresses.S3_PORT),
        environment={"ROOT_ACCESS_KEY_ID": access_key, "ROOT_SECRET_ACCESS_KEY": secret_key},
        ports=((addresses.HOST, addresses.S3_PORT),),
    )
