"""Every address and port of the cluster. None is open to the network: all are on loopback or on the pods' bridge."""

from __future__ import annotations

NODE = "tunesmith"
BRIDGE = "tunesmith0"
POD_NETWORK = "10.188.0.0/16"
POD_NETWORK_PREFIX = 16
SERVICE_NETWORK = "10.189.0.0/16"
FIRST_SERVICE = "10.189.0.1"
# The bridge's own address: the host as pods see it. Servers for pods and host listen here.
HOST = "10.188.0.1"
LOOPBACK = "127.0.0.1"
CLUSTER_DOMAIN = "cluster.local"

ETCD_PORT = 2379
APISERVER_PORT = 6443
CONTROLLER_MANAGER_PORT = 10257
SCHEDULER_PORT = 10259
KUBELET_PORT = 10250
KUBELET_HEALTH_PORT = 10248
PROXY_HEALTH_PORT = 10256
PROXY_METRICS_PORT = 10249
DNS_PORT = 53
DNS_READY_PORT = 8181
REGISTRY_PORT = 5001
S3_PORT = 7070

# A name for it, not an address: image references read better with it, and every tool takes it for a local registry.
REGISTRY = f"localhost:{REGISTRY_PORT}"
S3_ENDPOINT = f"http://{HOST}:{S3_PORT}"
