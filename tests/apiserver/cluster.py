"""What tests do to a cluster: make objects, look at them, wait; and play the kubelet, which is not there."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlencode

import urllib3

from devcluster.standalone import ControlPlane
from tunesmith_operator.client import RESOURCES, ApiResource
from tunesmith_operator.plan.types import Raw

T = TypeVar("T")

NODE = "node-1"
"""The node that pods are put on. It has no kubelet."""

OTHERS = {
    "Namespace": ApiResource("v1", "namespaces"),
    "ResourceQuota": ApiResource("v1", "resourcequotas"),
    "ConfigMap": ApiResource("v1", "configmaps"),
    "ReplicaSet": ApiResource("apps/v1", "replicasets"),
}
KINDS: Mapping[str, ApiResource] = {**RESOURCES, **OTHERS}


class Refused(Exception):
    """The API server rejected a request."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status} {message}")
        self.status = status


@dataclass(frozen=True)
class Cluster:
    """A namespace as the administrator sees it. Its HTTP client is not the operator's."""

    plane: ControlPlane
    http: urllib3.PoolManager
    namespace: str

    def create(self, manifest: Raw) -> Raw:
        resource = KINDS[manifest["kind"]]
        body = {"apiVersion": resource.api_version, **manifest}
        return self.request("POST", resource.path(self.namespace), body, {"fieldValidation": "Strict"})

    def get(self, kind: str, name: str) -> Raw | None:
        try:
            return self.request("GET", KINDS[kind].path(self.namespace, name))
        except Refused as error:
            if error.status == 404:
                return None
            raise

    def find(self, kind: str, labels: str = "", fields: str = "") -> list[Raw]:
        path = KINDS[kind].path(self.namespace)
        items: list[Raw] = self.request("GET", path, query={"labelSelector": labels, "fieldSelector": fields})["items"]
        return items

    def patch(self, kind: str, name: str, patch: Raw, subresource: str | None = None) -> Raw:
        path = KINDS[kind].path(self.namespace, name, subresource)
        return self.request("PATCH", path, patch, content_type="application/merge-patch+json")

    def delete(self, kind: str, name: str) -> None:
        self.request("DELETE", KINDS[kind].path(self.namespace, name), {"propagationPolicy": "Background"})

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        command = [self.plane.program("kubectl"), "--kubeconfig", str(self.plane.kubeconfig), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def request(
        self,
        method: str,
        path: str,
        body: Raw | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Raw:
        """One request as the administrator; raises Refused."""
        url = f"{self.plane.url}{path}?{urlencode(query or {})}"
        headers = {"Content-Type": content_type}
        answer = self.http.request(method, url, body=json.dumps(body) if body is not None else None, headers=headers)
        result: Raw = json.loads(answer.data)
        if answer.status >= 400:
            raise Refused(answer.status, result.get("message", ""))
        return result

    def until(self, what: str, look: Callable[[], T | None], seconds: float = 60) -> T:
        """The first true result of `look`; fails after `seconds`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if seen := look():
                return seen
            time.sleep(0.1)
        raise AssertionError(f"not within {seconds:g} s: {what}")

    def until_phase(self, kind: str, name: str, *phases: str, seconds: float = 60) -> Raw:
        """The resource as soon as it is in one of `phases`."""
        end = time.monotonic() + seconds
        resource: Raw | None = None
        while time.monotonic() < end:
            resource = self.get(kind, name)
            if resource and resource.get("status", {}).get("phase") in phases:
                return resource
            time.sleep(0.1)
        status = json.dumps((resource or {}).get("status"), indent=2)
        raise AssertionError(
            f"{kind} {name} not in phase {' or '.join(phases)} within {seconds:g} s; its status: {status}"
        )

    def until_gone(self, kind: str, name: str, seconds: float = 60) -> None:
        """Wait for garbage collection, which learns of new kinds every 30 s only."""
        self.until(f"{kind} {name} is gone", lambda: self.get(kind, name) is None, seconds)

    def job(self, name: str, seconds: float = 60) -> Raw:
        """The Job, as soon as there is one."""
        return self.until(f"Job {name}", lambda: self.get("Job", name), seconds)

    def pod_of(self, job: str, seconds: float = 60) -> Raw:
        """The pod that the Job controller made for a Job."""
        return self.until(
            f"a pod of Job {job}",
            lambda: next(iter(self.find("Pod", f"batch.kubernetes.io/job-name={job}")), None),
            seconds,
        )

    def events(self, kind: str, name: str) -> list[Raw]:
        """The Events about an object, oldest first."""
        found = self.find("Event", fields=f"involvedObject.kind={kind},involvedObject.name={name}")
        return sorted(found, key=lambda event: int(event["metadata"]["resourceVersion"]))

    def writes(self, user: str) -> list[str]:
        """What `user` has written in this namespace so far, by the audit log: `verb resource/name`, in order."""
        return self.requests(user, "create", "update", "patch", "delete", "deletecollection")

    def requests(self, user: str, *verbs: str) -> list[str]:
        """What `user` has asked of this namespace so far with one of `verbs`: `verb resource/name`, in order."""
        with self.plane.audit_log.open() as log:  # that of the whole tier is long, and its last line maybe not whole
            lines = [line for line in log if user in line and self.namespace in line and line.endswith("\n")]
        entries = map(json.loads, lines)
        return [
            f"{entry['verb']} {target['resource']}/{target.get('name', '')}"
            for entry in entries
            if entry["verb"] in verbs
            and entry["user"]["username"] == user
            and (target := entry.get("objectRef", {})).get("namespace") == self.namespace
        ]


@dataclass(frozen=True)
class Kubelet:
    """Reports about one pod, as the kubelet would."""

    cluster: Cluster
    pod: Raw

    @property
    def name(self) -> str:
        name: str = self.pod["metadata"]["name"]
        return name

    def bind(self) -> None:
        """Put the pod on the node, as the scheduler would."""
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": self.name},
            "target": {"apiVersion": "v1", "kind": "Node", "name": NODE},
        }
        self.cluster.request("POST", KINDS["Pod"].path(self.cluster.namespace, self.name, "binding"), body)

    def unschedulable(self, message: str) -> None:
        """The scheduler has found no node."""
        self._report(
            phase="Pending",
            conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}],
        )

    def waits(self, container: str, reason: str, message: str) -> None:
        """A container can not be started."""
        waiting = {"waiting": {"reason": reason, "message": message}}
        self._report(phase="Pending", **self._containers(lambda name: waiting if name == container else _INITIALIZING))

    def runs(self, container: str) -> None:
        """`container` runs, those before it have succeeded, those after it wait."""
        names = self._names()
        position = names.index(container)
        states = [*([_ended(0)] * position), {"running": {"startedAt": _now()}}]
        is_main = container in {each["name"] for each in self.pod["spec"]["containers"]}
        self._report(
            phase="Running" if is_main else "Pending",
            startTime=_now(),
            **self._containers(lambda name: dict(zip(names, states, strict=False)).get(name, _INITIALIZING)),
        )

    def ends(self, messages: Mapping[str, str], failed: Mapping[str, Raw] | None = None) -> None:
        """The pod has ended, with these termination messages; `failed` overrides the end of a container."""
        failed = failed or {}
        stopped = False
        states: dict[str, Raw] = {}
        for name in self._names():
            if stopped:
                states[name] = {"waiting": {"reason": "PodInitializing"}}
                continue
            end = failed.get(name, {})
            states[name] = _ended(end.get("exitCode", 0), end.get("reason"), end.get("message", messages.get(name, "")))
            stopped = name in failed
        self._report(
            phase="Failed" if failed else "Succeeded", startTime=_now(), **self._containers(states.__getitem__)
        )

    def ready(self) -> None:
        """All containers run and the pod answers."""
        names = {each["name"] for each in self.pod["spec"]["containers"]}
        running = {"running": {"startedAt": _now()}}
        self._report(
            phase="Running",
            startTime=_now(),
            conditions=[{"type": name, "status": "True"} for name in ("Initialized", "ContainersReady", "Ready")],
            **self._containers(lambda name: running if name in names else _ended(0)),
        )

    def evicted(self, reason: str, message: str) -> None:
        """The pod was killed from outside."""
        self._report(phase="Failed", reason=reason, message=message, startTime=_now())

    def _names(self) -> list[str]:
        spec = self.pod["spec"]
        return [each["name"] for each in (*spec.get("initContainers", ()), *spec["containers"])]

    def _containers(self, state: Callable[[str], Raw]) -> dict[str, list[Raw]]:
        spec = self.pod["spec"]
        return {
            "initContainerStatuses": [_container(each, state(each["name"])) for each in spec.get("initContainers", ())],
            "containerStatuses": [_container(each, state(each["name"])) for each in spec["containers"]],
        }

    def _report(self, **status: Any) -> None:
        self.cluster.patch("Pod", self.name, {"status": status}, "status")


_INITIALIZING: Raw = {"waiting": {"reason": "PodInitializing"}}


def _container(spec: Raw, state: Raw) -> Raw:
    return {
        "name": spec["name"],
        "image": spec["image"],
        "imageID": "",
        "ready": "running" in state,
        "started": "running" in state,
        "restartCount": 0,
        "state": state,
    }


def _ended(code: int, reason: str | None = None, message: str = "") -> Raw:
    ended = {"exitCode": code, "reason": reason or ("Completed" if code == 0 else "Error"), "finishedAt": _now()}
    return {"terminated": {**ended, "startedAt": _now(), **({"message": message} if message else {})}}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def administrator(plane: ControlPlane, connections: int = 1) -> urllib3.PoolManager:
    """An HTTP client with the administrator's certificate, for so many threads."""
    pki = plane.ca.parent
    return urllib3.PoolManager(
        ca_certs=str(plane.ca),
        cert_file=str(pki / "admin.crt"),
        key_file=str(pki / "admin.key"),
        maxsize=connections,
    )


def namespaces() -> Iterator[str]:
    """Names for namespaces, never the same."""
    number = 0
    while True:
        number += 1
        yield f"test-{number}"
