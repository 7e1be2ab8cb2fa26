"""metrics.k8s.io as metrics-server would serve it, with figures that a test sets. Only autoscalers ask."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.apiserver.cluster import Cluster, Raw

GROUP = "metrics.k8s.io"
ROOT = f"/apis/{GROUP}/v1beta1"
SERVICES = "/api/v1/namespaces/kube-system/services"
API_SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
RESOURCES: Raw = {
    "kind": "APIResourceList",
    "apiVersion": "v1",
    "groupVersion": f"{GROUP}/v1beta1",
    "resources": [
        {"name": "pods", "singularName": "", "namespaced": True, "kind": "PodMetrics", "verbs": ["get", "list"]}
    ],
}


class Usage:
    """What each pod uses."""

    millicores = 0


@contextmanager
def metrics_api(cluster: Cluster) -> Iterator[Usage]:
    """The API, registered with the API server as long as the context lasts."""
    usage = Usage()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(cluster, usage))
    tls, pki = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), cluster.plane.ca.parent
    tls.load_cert_chain(pki / "server.crt", pki / "server.key")
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        _register(cluster, server.server_port)
        yield usage
    finally:
        cluster.request("DELETE", f"{API_SERVICES}/v1beta1.{GROUP}")
        cluster.request("DELETE", f"{SERVICES}/metrics")
        server.shutdown()
        server.server_close()


def _register(cluster: Cluster, port: int) -> None:
    """The aggregator goes to where a Service points; one that is an external name needs no network of pods."""
    outside = {"type": "ExternalName", "externalName": "localhost"}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "metrics"}, "spec": outside}
    cluster.request("POST", SERVICES, service)
    where = {"service": {"namespace": "kube-system", "name": "metrics", "port": port}, "insecureSkipTLSVerify": True}
    spec = {**where, "group": GROUP, "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100}
    name = {"name": f"v1beta1.{GROUP}"}
    cluster.request(
        "POST",
        API_SERVICES,
        {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": name, "spec": spec},
    )


def _handler(cluster: Cluster, usage: Usage) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            if url.path == ROOT:
                self._answer(RESOURCES)
            elif url.path == f"{ROOT}/namespaces/{cluster.namespace}/pods":
                self._answer(_pods(cluster, usage, parse_qs(url.query).get("labelSelector", [""])[0]))
            else:
                self.send_error(404)

        def _answer(self, body: Raw) -> None:
            text = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    return Handler


def _pods(cluster: Cluster, usage: Usage, labels: str) -> Raw:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    items = [
        {
            "metadata": {"name": pod["metadata"]["name"], "namespace": cluster.namespace},
            "timestamp": now,
            "window": "15s",
            "containers": [{"name": "serve", "usage": {"cpu": f"{usage.millicores}m", "memory": "1Mi"}}],
        }
        for pod in cluster.find("Pod", labels)
    ]
    return {"kind": "PodMetricsList", "apiVersion": f"{GROUP}/v1beta1", "metadata": {}, "items": items}
