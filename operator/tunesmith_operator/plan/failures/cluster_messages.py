"""Messages of kubelet, scheduler and admission -> failure class and hint.

Kubernetes reports many causes in prose only. Each row has a message as Kubernetes 1.36 and containerd write it; the order of
the rows decides. A message that no row matches keeps its class and the hint of that class.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from tunesmith_api.failures import FailureClass

READ_CHARACTERS = 4096
"""No message of Kubernetes is longer. Parts of it are user input, which must not be expensive to match."""


@dataclass(frozen=True)
class Row:
    """A message, and what to do about it."""

    pattern: re.Pattern[str]
    hint: str
    """`{name}` is a group of the pattern or a key of `hints.hint_values`."""
    class_: FailureClass | None = None
    """The class, if the message is more exact than the place where it was found."""


@dataclass(frozen=True)
class Interpretation:
    """The cause that a message states, and what to do about it."""

    class_: FailureClass | None
    """None: the message does not decide the class."""
    hint: str


def _row(pattern: str, hint: str, class_: FailureClass | None = None) -> Row:
    return Row(re.compile(pattern, re.IGNORECASE), hint, class_)


PULLING = (
    _row(
        r"no match for platform in manifest",
        "build the image for the node's CPU architecture too, or choose other nodes with "
        "spec.pod.nodeSelector (kubernetes.io/arch)",
    ),
    _row(
        r"401 unauthorized|403 forbidden|authorization failed|pull access denied|no basic auth credentials"
        r"|authentication required|denied: ",
        "check the image's name, and the Secrets of type kubernetes.io/dockerconfigjson in namespace {namespace} that "
        "spec.pod.imagePullSecrets names ({pull_secrets}): the registry does not let them read the image",
    ),
    _row(
        r"429 too many requests|toomanyrequests",
        "name credentials in spec.pod.imagePullSecrets, or set the image to a copy in another registry (images in the chart's "
        "values): this registry limits the rate of pulls",
    ),
    _row(
        r"x509|tls: |server gave HTTP response to HTTPS client",
        "correct the registry configuration of the node's container runtime: the node does not trust the registry's certificate, "
        "or the registry serves plain HTTP",
    ),
    _row(
        r"no such host|connection refused|i/o timeout|no route to host|network is unreachable|context deadline exceeded"
        r"|registry is unavailable|TLS handshake timeout|unexpected EOF",
        "check the registry in the image's name, and DNS and network of the node: the node cannot reach the registry",
    ),
    _row(r"no space left on device", "the disk of node {node} is full: free some of it, or drain the node"),
    _row(
        r"not found|manifest unknown|repository does not exist",
        "correct the image's name or tag in the chart's values (images), or push the image",
    ),
    _row(
        r"not present with pull policy of never",
        "set images.pullPolicy to IfNotPresent in the chart's values: the node lacks the image and may not pull it",
    ),
    _row(
        r"signature validation failed",
        "sign the image, or correct the signature policy of the node",
    ),
    _row(
        r"couldn't parse image|invalid reference format|failed to apply default image tag",
        "correct the image's name in the chart's values (images)",
    ),
)
"""Why an image cannot be pulled (kubelet/images, containerd's resolver)."""

STARTING = (
    _row(
        r'secret "(?P<name>[^"]+)" not found',
        "create Secret {name} in namespace {namespace}; the pod then starts by itself",
    ),
    _row(
        r'configmap "(?P<name>[^"]+)" not found',
        "create ConfigMap {name} in namespace {namespace}; the pod then starts by itself",
    ),
    _row(
        r"couldn't find key (?P<key>\S+) in (?P<kind>Secret|ConfigMap) \S+?/(?P<name>\S+)",
        "add the key {key} to {kind} {name} in namespace {namespace}",
    ),
    _row(
        r"references non-existent (?:config|secret) key: (?P<key>\S+)",
        "add the key {key} to the ConfigMap or Secret that the volume names, in namespace {namespace}",
    ),
    _row(
        r"multi-attach error",
        "wait until the pod on another node that uses the volume is gone, or use a volume for several nodes (access mode "
        "ReadOnlyMany or ReadWriteMany)",
        FailureClass.VOLUME_UNAVAILABLE,
    ),
    _row(
        r"persistentvolumeclaim|PVC|AttachVolume|attach or mount volumes|timed out waiting for the condition",
        "check the volume (kubectl --namespace {namespace} get pvc) and the CSI driver's pods on node {node}",
        FailureClass.VOLUME_UNAVAILABLE,
    ),
    _row(
        r"runasnonroot|run as root|non-numeric user",
        "use an image whose user is not root (images in the chart's values): our pods may not run as root",
    ),
    _row(
        r"exec format error",
        "use an image for the node's CPU architecture, or choose other nodes with spec.pod.nodeSelector (kubernetes.io/arch)",
    ),
    _row(
        r"executable file not found|no such file or directory",
        "check that images in the chart's values names the images of this version: the program to start is missing",
    ),
    _row(
        r"no runtime for|runtime handler",
        "install the container runtime of spec.pod.runtimeClassName on node {node}, or choose other nodes",
    ),
    _row(
        r"no ip addresses available|failed to allocate for range|failed to assign an ip",
        "delete pods on node {node}, or give its network more addresses: it has no free pod IP address",
    ),
    _row(
        r"cni|network plugin|failed to setup network",
        "check the CNI plugin's pods on node {node}, or drain the node: its pod network does not work",
    ),
    _row(
        r"no space left on device",
        "the disk of node {node} is full: free some of it, or drain the node",
    ),
)
"""Why a container cannot be started (kubelet, runc, CSI, CNI)."""

ADMISSION = (
    _row(
        r"status unknown for quota: (?P<quota>[^,\s]+)",
        "wait: ResourceQuota {quota} is new and not counted yet, and the pod is created again by itself; if this lasts for "
        "minutes, check the kube-controller-manager",
        FailureClass.QUOTA_EXCEEDED,
    ),
    _row(
        r"insufficient quota to consume: (?P<what>[\w./,-]*\w)",
        "ask an administrator for a ResourceQuota for {what} in namespace {namespace}: the cluster admits it only in namespaces with such a quota",
        FailureClass.QUOTA_EXCEEDED,
    ),
    _row(
        r"insufficient quota to match these scopes",
        "ask an administrator for a ResourceQuota of the named scopes in namespace {namespace}, or, if the scope is PriorityClass, change "
        "spec.pod.priorityClassName: the cluster admits the pod only in namespaces with such a quota",
        FailureClass.QUOTA_EXCEEDED,
    ),
    _row(
        r"exceeded quota|failed quota",
        "lower spec.resources, or ask for a higher ResourceQuota in namespace {namespace} (kubectl --namespace {namespace} describe "
        "quota)",
        FailureClass.QUOTA_EXCEEDED,
    ),
    _row(
        r'violates PodSecurity "(?P<level>[^"]+)":.*volume "cache"',
        "ask an administrator to replace cache.hostPath in the chart's values by cache.claim, or to set the label "
        "pod-security.kubernetes.io/enforce of namespace {namespace} to privileged: the level {level} forbids folders of the node",
    ),
    _row(
        r'violates PodSecurity "(?P<level>[^"]+)"',
        "look for a webhook that injects containers or volumes into pods of namespace {namespace}: without it our pods meet the "
        "level restricted",
    ),
    _row(
        r'failed calling webhook "(?P<webhook>[^"]+)"',
        "ask the owner of admission webhook {webhook} to repair it: it does not answer, so no pod is admitted; the pod is created "
        "again by itself",
    ),
    _row(
        r'admission webhook "(?P<webhook>[^"]+)" denied',
        "change spec.pod as the message of admission webhook {webhook} requires, or ask its owner to change the rule",
    ),
    _row(
        r"ValidatingAdmissionPolicy '(?P<policy>[^']+)'",
        "change spec.pod as the message of ValidatingAdmissionPolicy {policy} requires, or ask its owner to change the policy",
    ),
    _row(
        r"error looking up service account (?P<account>\S+):",
        "create ServiceAccount {account}, or name an existing ServiceAccount in spec.pod.serviceAccountName",
    ),
    _row(
        r"no PriorityClass with name (?P<name>\S+) was found",
        "set spec.pod.priorityClassName to a name from kubectl get priorityclasses, or remove it: {name} does not exist",
    ),
    _row(
        r'RuntimeClass "(?P<name>[^"]+)" not found',
        "set spec.pod.runtimeClassName to a name from kubectl get runtimeclasses, or remove it: {name} does not exist",
    ),
)
"""Why the API server rejects a pod or another child (admission plugins). See also namespace_limits."""

SCHEDULING = (
    _row(
        r'persistentvolumeclaim "(?P<name>[^"]+)" not found',
        "create PersistentVolumeClaim {name} in namespace {namespace}; the pod is then scheduled by itself",
        FailureClass.VOLUME_UNAVAILABLE,
    ),
    _row(
        r"unbound immediate PersistentVolumeClaims|available persistent volumes to bind|bound to non-existent persistentvolume"
        r"|non-existent pv|did not have enough free storage",
        "check the PersistentVolumeClaim that is not bound (kubectl --namespace {namespace} describe pvc), and its StorageClass",
        FailureClass.VOLUME_UNAVAILABLE,
    ),
    _row(
        r"PersistentVolume's node affinity|no available volume zone",
        "free room on the nodes, or in the zone, of the volume",
        FailureClass.VOLUME_UNAVAILABLE,
    ),
    _row(
        r"ReadWriteOncePod access mode already in-use",
        "wait until the pod that uses the volume is gone, or use a ReadWriteMany volume",
        FailureClass.VOLUME_UNAVAILABLE,
    ),
    _row(
        r"Insufficient (?P<device>(?:[\w-]+\.)+[\w-]+/[\w.-]*\w)",
        "free or add a node with {device}, check that its device plugin runs there (kubectl describe node shows "
        "{device} under Allocatable){fewer_devices}",
    ),
    _row(
        r"Insufficient ephemeral-storage",
        "lower spec.resources.ephemeralStorage, or free or add a node with more ephemeral-storage",
    ),
    _row(
        r"Insufficient (?P<what>cpu|memory)",
        "lower spec.resources.{what}, or free or add a node with more {what}",
    ),
    _row(r"Too many pods", "free or add a node: the nodes run as many pods as they may"),
    _row(
        r"node affinity/selector",
        "correct spec.pod.nodeSelector, or label a node (kubectl label node): no free node has its labels",
    ),
    _row(
        r"untolerated taint|pod didn't tolerate",
        "tolerate the taint in spec.pod.tolerations if the pod may run there; kubectl describe node shows the taints of a node",
    ),
    _row(r"were unschedulable", "uncordon the nodes when their maintenance is over (kubectl uncordon)"),
)
"""Why the scheduler finds no node (reasons of its plugins). A message may have several."""

EVICTION = (
    _row(
        r'usage of emptydir volume "shm"',
        "raise spec.resources.sharedMemory and, if it is set, spec.resources.memory by as much",
        FailureClass.SHARED_MEMORY_FULL,
    ),
    _row(
        r"usage of emptydir volume|exceeded its local ephemeral storage limit|ephemeral local storage usage exceeds",
        "raise spec.resources.ephemeralStorage, or, if it is not set, the default in the LimitRange of namespace {namespace}: "
        "model, data and checkpoints need more disk than the pod may use",
        FailureClass.DISK_FULL,
    ),
    _row(
        r"low on resource: memory",
        "set spec.resources.memory to what the pod needs, so that it is not the first to be evicted",
    ),
    _row(
        r"low on resource: (?:ephemeral-storage|inodes)",
        "set spec.resources.ephemeralStorage to what the pod needs, and free disk space on the node",
    ),
    _row(
        r"low on resource: pids",
        "stop the workload that creates so many processes on the node: it ran out of process IDs",
    ),
)
"""Why the kubelet evicts a pod (kubelet/eviction). The first two are limits of the pod: a retry would be evicted again."""

REJECTION = (
    _row(
        r"cannot allocate unhealthy devices (?P<device>\S+?),?(?:\s|$)",
        "check the driver of node {node}, or drain the node: its device plugin reports unhealthy {device}",
    ),
    _row(
        r"requested number of devices unavailable for (?P<device>\S+?)\.?(?:\s|$)",
        "wait for the next pod, which is created by itself: another pod took the {device} of node {node} first",
    ),
    _row(
        r"topology",
        "lower spec.resources.cpu{fewer_devices}, or relax the topologyManagerPolicy of the kubelet: node {node} has no NUMA node "
        "with enough free CPUs and devices",
    ),
    _row(
        r"enough resource: (?P<what>\S+), ",
        "wait for the next pod, which is created by itself: other pods took the {what} of node {node} first",
    ),
)
"""Why a kubelet rejects a pod that was scheduled to its node (kubelet/lifecycle, cm/devicemanager, cm/topologymanager)."""


def interpret(rows: Iterable[Row], message: str, values: Mapping[str, str]) -> Interpretation | None:
    """Return what the first matching row makes of `message`; `values` fill the placeholders of its hint."""
    return next(_interpretations(rows, message, values), None)


def interpret_all(rows: Iterable[Row], message: str, values: Mapping[str, str]) -> Interpretation | None:
    """Return what all matches of all rows make of `message`: the class of the first, the hints of all."""
    found = list(_interpretations(rows, message, values))
    hints = dict.fromkeys(interpretation.hint for interpretation in found)
    return Interpretation(found[0].class_, "; ".join(hints)) if found else None


def _interpretations(rows: Iterable[Row], message: str, values: Mapping[str, str]) -> Iterator[Interpretation]:
    for row in rows:
        for match in row.pattern.finditer(message[:READ_CHARACTERS]):
            yield Interpretation(row.class_, row.hint.format_map({**values, **match.groupdict()}))
