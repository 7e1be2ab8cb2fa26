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
    """`{name}` is a group of the pattern or one of `last_failure.hint_values`."""
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
        "the image is not built for the node's CPU architecture: build it for that one too, or choose other nodes with "
        "spec.pod.nodeSelector (kubernetes.io/arch)",
    ),
    _row(
        r"401 unauthorized|403 forbidden|authorization failed|pull access denied|no basic auth credentials"
        r"|authentication required|denied: ",
        "the registry does not let these credentials read the image: check its name, and the Secret of type "
        "kubernetes.io/dockerconfigjson in namespace {namespace} that spec.pod.imagePullSecrets names ({pull_secrets})",
    ),
    _row(
        r"429 too many requests|toomanyrequests",
        "the registry limits pulls: name credentials in spec.pod.imagePullSecrets, or set the image to a copy of it elsewhere "
        "(images in the chart's values)",
    ),
    _row(
        r"x509|tls: |server gave HTTP response to HTTPS client",
        "the node does not trust the registry's certificate, or the registry speaks plain HTTP: mend the container "
        "runtime's registry configuration on the node",
    ),
    _row(
        r"no such host|connection refused|i/o timeout|no route to host|network is unreachable|context deadline exceeded"
        r"|registry is unavailable|TLS handshake timeout|unexpected EOF",
        "the node does not reach the registry: check the image's registry name, DNS and network of the node",
    ),
    _row(r"no space left on device", "the disk of node {node} is full: free some of it, or drain the node"),
    _row(
        r"not found|manifest unknown|repository does not exist",
        "there is no such image or tag: correct the name in the chart's values (images), or push the image",
    ),
    _row(
        r"not present with pull policy of never",
        "the node lacks the image and may not pull it: set images.pullPolicy to IfNotPresent in the chart's values",
    ),
    _row(
        r"signature validation failed",
        "the image's signature is not accepted by the node: sign it, or mend the node's policy",
    ),
    _row(
        r"couldn't parse image|invalid reference format|failed to apply default image tag",
        "the text is not an image name: correct it in the chart's values (images)",
    ),
)
"""Why an image is not pulled (kubelet/images, containerd's resolver)."""

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
        "another pod on another node holds the volume: wait until it is gone, or use a ReadWriteMany volume",
        FailureClass.VOLUME_UNAVAILABLE,
    ),
    _row(
        r"persistentvolumeclaim|PVC|AttachVolume|attach or mount volumes|timed out waiting for the condition",
        "look at the volume: kubectl --namespace {namespace} get pvc, and the CSI driver's pods on node {node}",
        FailureClass.VOLUME_UNAVAILABLE,
    ),
    _row(
        r"runasnonroot|run as root|non-numeric user",
        "the image runs as root, which our pods may not: use an image whose user is not root (images in the chart's values)",
    ),
    _row(
        r"exec format error",
        "the image is for another CPU architecture than the node's: use an image for it, or choose other nodes with "
        "spec.pod.nodeSelector (kubernetes.io/arch)",
    ),
    _row(
        r"executable file not found|no such file or directory",
        "the image lacks the program that it is to start: check that images in the chart's values names this version's images",
    ),
    _row(
        r"no runtime for|runtime handler",
        "node {node} lacks the container runtime that spec.pod.runtimeClassName asks for: set it up there, or choose other nodes",
    ),
    _row(
        r"no ip addresses available|failed to allocate for range|failed to assign an ip",
        "node {node} has no free pod IP address: end pods there, or give the node's network more addresses",
    ),
    _row(
        r"cni|network plugin|failed to setup network",
        "the pod network of node {node} does not work: look at the CNI plugin's pods there, or drain the node",
    ),
    _row(
        r"no space left on device",
        "the disk of node {node} is full: free some of it, or drain the node",
    ),
)
"""Why a container is not started (kubelet, runc, CSI, CNI)."""

ADMISSION = (
    _row(
        r"status unknown for quota: (?P<quota>[^,\s]+)",
        "ResourceQuota {quota} is new and not counted yet: the pod is tried again by itself; if this lasts for minutes, have the "
        "kube-controller-manager checked",
        FailureClass.QUOTA_EXCEEDED,
    ),
    _row(
        r"insufficient quota to consume: (?P<what>[\w./,-]*\w)",
        "the cluster admits {what} only in namespaces with a ResourceQuota of it: have one created in namespace {namespace}",
        FailureClass.QUOTA_EXCEEDED,
    ),
    _row(
        r"insufficient quota to match these scopes",
        "the cluster admits this pod only in namespaces with a ResourceQuota of the named scopes: have one created in namespace "
        "{namespace}, or change spec.pod.priorityClassName where the scope is PriorityClass",
        FailureClass.QUOTA_EXCEEDED,
    ),
    _row(
        r"exceeded quota|failed quota",
        "a ResourceQuota of namespace {namespace} does not allow it (kubectl --namespace {namespace} describe quota): ask for less "
        "in spec.resources, or have the quota raised",
        FailureClass.QUOTA_EXCEEDED,
    ),
    _row(
        r'violates PodSecurity "(?P<level>[^"]+)"',
        "our pods meet the level restricted, so something adds to them: look for a webhook that injects containers into "
        "namespace {namespace}; Ascend's host paths need the level privileged",
    ),
    _row(
        r'failed calling webhook "(?P<webhook>[^"]+)"',
        "admission webhook {webhook} does not answer, so that no pod is admitted: have its owner repair it; the pod is "
        "tried again by itself",
    ),
    _row(
        r'admission webhook "(?P<webhook>[^"]+)" denied',
        "admission webhook {webhook} says why in the message: change spec.pod to what it asks for, or have its rule changed",
    ),
    _row(
        r"ValidatingAdmissionPolicy '(?P<policy>[^']+)'",
        "ValidatingAdmissionPolicy {policy} says why in the message: change spec.pod to what it asks for, or have it changed",
    ),
    _row(
        r"error looking up service account (?P<account>\S+):",
        "create ServiceAccount {account}, or name one that exists in spec.pod.serviceAccountName",
    ),
    _row(
        r"no PriorityClass with name (?P<name>\S+) was found",
        "there is no PriorityClass {name}: set spec.pod.priorityClassName to one of kubectl get priorityclasses, or remove it",
    ),
    _row(
        r'RuntimeClass "(?P<name>[^"]+)" not found',
        "there is no RuntimeClass {name}: set spec.pod.runtimeClassName to one of kubectl get runtimeclasses, or remove it",
    ),
)
"""Why the API server refuses a pod or another child (admission plugins); quotas and ranges are read by `bounds`."""

SCHEDULING = (
    _row(
        r'persistentvolumeclaim "(?P<name>[^"]+)" not found',
        "create PersistentVolumeClaim {name} in namespace {namespace}; the pod is then scheduled by itself",
        FailureClass.VOLUME_UNAVAILABLE,
    ),
    _row(
        r"unbound immediate PersistentVolumeClaims|available persistent volumes to bind|bound to non-existent persistentvolume"
        r"|non-existent pv|did not have enough free storage",
        "a PersistentVolumeClaim is not bound: look at it with kubectl --namespace {namespace} describe pvc, and at its "
        "StorageClass",
        FailureClass.VOLUME_UNAVAILABLE,
    ),
    _row(
        r"PersistentVolume's node affinity|no available volume zone",
        "the volume is on other nodes, or in another zone, than those that have room: free room there",
        FailureClass.VOLUME_UNAVAILABLE,
    ),
    _row(
        r"ReadWriteOncePod access mode already in-use",
        "another pod holds the volume: wait until it is gone, or use a ReadWriteMany volume",
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
    _row(r"Too many pods", "the nodes have as many pods as they may: free or add a node"),
    _row(
        r"node affinity/selector",
        "no free node has the labels that spec.pod.nodeSelector asks for: correct it, or label a node (kubectl label node)",
    ),
    _row(
        r"untolerated taint|pod didn't tolerate",
        "if the pod may run there, tolerate the taint in spec.pod.tolerations; kubectl describe node shows the taints of a node",
    ),
    _row(r"were unschedulable", "nodes are cordoned: kubectl uncordon them when their maintenance is over"),
)
"""Why the scheduler finds no node (its plugins' reasons). A sentence may have several of them."""

EVICTION = (
    _row(
        r'usage of emptydir volume "shm"',
        "raise spec.resources.sharedMemory and, where it is set, spec.resources.memory by as much",
        FailureClass.SHARED_MEMORY_FULL,
    ),
    _row(
        r"usage of emptydir volume|exceeded its local ephemeral storage limit|ephemeral local storage usage exceeds",
        "model, data and checkpoints need more disk than the pod may use: raise spec.resources.ephemeralStorage, or, where it is not "
        "set, have the LimitRange of namespace {namespace} allow more",
        FailureClass.DISK_FULL,
    ),
    _row(
        r"low on resource: memory",
        "the node ran out of memory: set spec.resources.memory to what the pod needs, so that it is not the first to go",
    ),
    _row(
        r"low on resource: (?:ephemeral-storage|inodes)",
        "the node's disk ran full: set spec.resources.ephemeralStorage to what the pod needs, and free the disk of the node",
    ),
    _row(r"low on resource: pids", "the node ran out of process numbers: end what makes so many processes there"),
)
"""Why the kubelet evicts a pod (kubelet/eviction). A pod that is over its own limit would be evicted again."""

REJECTION = (
    _row(
        r"cannot allocate unhealthy devices (?P<device>\S+?),?(?:\s|$)",
        "the devices {device} of node {node} are unhealthy, says its device plugin: look at the node's driver, or drain it",
    ),
    _row(
        r"requested number of devices unavailable for (?P<device>\S+?)\.?(?:\s|$)",
        "another pod took the {device} of node {node} first; another pod is tried by itself",
    ),
    _row(
        r"topology",
        "node {node} can't give the pod CPUs and devices of one NUMA node: lower spec.resources.cpu{fewer_devices}, or relax the "
        "kubelet's topologyManagerPolicy",
    ),
    _row(
        r"enough resource: (?P<what>\S+), ",
        "other pods took the {what} of node {node} first; another pod is tried by itself",
    ),
)
"""Why a kubelet rejects a pod that the scheduler gave it (kubelet/lifecycle, cm/devicemanager, cm/topologymanager)."""


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
