"""A cluster in memory, in three parts, which tests use together or alone.

`SimulatedCluster` is the API server behind the operator's `Client` protocol, `Controllers` what the Job and Deployment
controllers and the kubelets do, a step a second, and `Operator` the operator's process, which a test may kill.
"""

from __future__ import annotations

import asyncio
import copy
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta, tzinfo
from typing import Any

from tests.unit.operator.plan.world import CONFIG, START, condition, ended, report, running, token, waiting
from tunesmith_operator.client import ApiError
from tunesmith_operator.controller import Controller, Settings
from tunesmith_operator.informer import CHILD_KINDS
from tunesmith_operator.plan import KINDS
from tunesmith_operator.plan.names import ROLE_LABEL
from tunesmith_operator.plan.times import format_time
from tunesmith_operator.plan.types import Raw
from tunesmith_operator.progress_receiver import ProgressReports

NAMESPACE = "team"
RELIST_SECONDS = 60
"""Interval at which all watch streams restart with a list, as API servers make them do."""
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")

ObjectKey = tuple[str, str, str]
"""Kind, namespace, name."""
OnEvent = Callable[[str | None, Raw], None]


class Killed(BaseException):
    """The operator's process was killed. Not an Exception: no handler may continue."""


def clock_seconds() -> float:
    """The time of the running event loop; 0 without one."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return 0.0


def cluster_time() -> str:
    """The time of the cluster, which starts at START."""
    return format_time(START + timedelta(seconds=clock_seconds()))


class Clock:
    """Replaces `datetime` in the controller's module: the time of the cluster."""

    @staticmethod
    def now(_: tzinfo) -> Any:
        return START + timedelta(seconds=clock_seconds())


class SimulatedCluster:
    """An API server: uids, generations, resourceVersions, preconditions, server-side apply of one field manager, garbage
    collection, no write without a change. No schemas and no field selectors.

    `errors` maps (verb, kind) to the ApiError that such calls raise. `on_event` receives the watch events.
    """

    def __init__(self, *objects: Raw) -> None:
        self.objects: dict[ObjectKey, Raw] = {}
        self.calls: list[tuple[str, str, str]] = []
        self.errors: dict[tuple[str, str], ApiError] = {}
        self.on_event: OnEvent = lambda event_type, obj: None
        self.kill_at: tuple[int, bool] | None = None
        """The write, counted from 1, that kills the operator, and whether it is carried out before."""
        self.write_count = 0
        self._version = 0
        self._births: Counter[ObjectKey] = Counter()
        self._applied: dict[ObjectKey, Raw] = {}
        for each in objects:
            self.put(each)

    @property
    def resource_version(self) -> str:
        return str(self._version)

    def put(self, obj: Raw) -> Raw:
        """Create or replace an object as another client than the operator."""
        key, new = _key(obj), copy.deepcopy(obj)
        old = self.objects.get(key)
        if old is None:
            self._births[key] += 1
            uid = f"{key[0]}-{key[2]}-{self._births[key]}".lower()
            defaults = {"uid": uid, "creationTimestamp": cluster_time(), "generation": 1}
            new["metadata"] = {**defaults, **new["metadata"]}
        else:
            kept = {name: old["metadata"][name] for name in ("uid", "creationTimestamp", "resourceVersion")}
            generation = old["metadata"]["generation"] + (new.get("spec") != old.get("spec"))
            new["metadata"] = {**new["metadata"], **kept, "generation": generation}
            if new == old:
                return copy.deepcopy(old)
        self._version += 1
        new["metadata"]["resourceVersion"] = self.resource_version
        self.objects[key] = new
        self.on_event("MODIFIED" if old else "ADDED", copy.deepcopy(new))
        return copy.deepcopy(new)

    def remove(self, key: ObjectKey) -> Raw | None:
        """Delete an object and its dependents. Returns its last state."""
        gone = self.objects.pop(key, None)
        if gone is None:
            return None
        self._version += 1
        gone["metadata"]["resourceVersion"] = self.resource_version
        self.on_event("DELETED", copy.deepcopy(gone))
        for other, obj in list(self.objects.items()):
            owners = [owner["uid"] for owner in obj["metadata"].get("ownerReferences", ())]
            if owners == [gone["metadata"]["uid"]]:
                self.remove(other)
        return gone

    def writes(self) -> list[tuple[str, str, str]]:
        """(verb, kind, name) of every write by the operator, in order."""
        return [call for call in self.calls if call[0] not in ("get", "list")]

    async def get(self, kind: str, namespace: str, name: str) -> Raw | None:
        self._record("get", kind, name)
        return copy.deepcopy(self.objects.get((kind, namespace, name)))

    async def list(
        self,
        kind: str,
        namespace: str | None,
        labels: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
        limit: int | None = None,
        cached: bool = False,
        since: str | None = None,
        version: str | None = None,
    ) -> list[Raw]:
        self._record("list", kind, "")
        found = [
            copy.deepcopy(obj)
            for (its_kind, its_namespace, _), obj in self.objects.items()
            if its_kind == kind
            and namespace in (None, its_namespace)
            and (labels or {}).items() <= (obj["metadata"].get("labels") or {}).items()
        ]
        return found[:limit]

    async def create(self, manifest: Raw) -> Raw:
        self._record("create", *_kind_and_name(manifest))

        def carry_out() -> Raw:
            if _key(manifest) in self.objects:
                raise ApiError("POST", 409, "AlreadyExists", "the name is taken")
            return self.put(manifest)

        return self._write(carry_out)

    async def replace(self, manifest: Raw) -> Raw:
        self._record("replace", *_kind_and_name(manifest))

        def carry_out() -> Raw:
            self._check_version(manifest)
            return self.put(manifest)

        return self._write(carry_out)

    async def apply(self, manifest: Raw, uid: str | None) -> Raw:
        self._record("apply", *_kind_and_name(manifest))

        def carry_out() -> Raw:
            key = _key(manifest)
            old = self.objects.get(key)
            if (old["metadata"]["uid"] if old else None) != uid:
                raise ApiError("PATCH", 409, "Conflict", "another object has the name")
            merged = _merge(_remove_fields(old, self._applied.get(key, {})), manifest) if old else manifest
            written = self.put(merged)
            self._applied[key] = copy.deepcopy(manifest)
            return written

        return self._write(carry_out)

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        self._record("delete", kind, name)

        def carry_out() -> Raw:
            found = self.objects.get((kind, namespace, name))
            if found and found["metadata"]["uid"] == uid:
                self.remove((kind, namespace, name))
            return {}

        self._write(carry_out)

    async def write_status(self, resource: Raw, status: Raw) -> Raw:
        self._record("status", *_kind_and_name(resource))

        def carry_out() -> Raw:
            return self.put({**self._check_version(resource), "status": json.loads(json.dumps(status))})

        return self._write(carry_out)

    def _check_version(self, manifest: Raw) -> Raw:
        """The stored object, if it has the resourceVersion of `manifest`."""
        found = self.objects.get(_key(manifest))
        if found is None:
            raise ApiError("PUT", 404, "NotFound", "no such object")
        if found["metadata"]["resourceVersion"] != manifest["metadata"]["resourceVersion"]:
            raise ApiError("PUT", 409, "Conflict", "the object has been modified")
        return found

    def _record(self, verb: str, kind: str, name: str) -> None:
        self.calls.append((verb, kind, name))
        if (verb, kind) in self.errors:
            raise self.errors[(verb, kind)]

    def _write(self, carry_out: Callable[[], Raw]) -> Raw:
        self.write_count += 1
        if self.kill_at == (self.write_count, False):
            raise Killed
        written = carry_out()
        if self.kill_at == (self.write_count, True):
            raise Killed
        return written


def _key(obj: Raw) -> ObjectKey:
    return obj["kind"], obj["metadata"]["namespace"], obj["metadata"]["name"]


def _kind_and_name(obj: Raw) -> tuple[str, str]:
    return obj["kind"], obj["metadata"]["name"]


def _merge(old: Any, new: Any) -> Any:
    """`new` over `old`, field by field."""
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{name: _merge(old.get(name), value) for name, value in new.items()}}
    return copy.deepcopy(new)


def _remove_fields(obj: Any, applied: Any) -> Any:
    """`obj` without the fields that the last apply has set."""
    if not isinstance(obj, dict) or not isinstance(applied, dict):
        return obj
    left = {name: _remove_fields(value, applied.get(name)) for name, value in obj.items()}
    return {name: value for name, value in left.items() if name not in applied or isinstance(value, dict)}


class Operator:
    """The controller with two workers, in one process after another."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster
        self.restarts = 0
        self._start()

    def _start(self) -> None:
        settings = Settings(CONFIG, token, "operator")
        self.controller = Controller(self._cluster, KINDS, ProgressReports(), settings)
        coroutines = (self.controller.work(), self.controller.work(), self.controller.resync())
        self.tasks = [asyncio.create_task(each) for each in coroutines]
        self.relist()

    def relist(self) -> None:
        """Restart all watch streams, with a list."""
        for kind in CHILD_KINDS:
            self.controller.on_stream_start(kind, None, self._cluster.resource_version)
        for obj in list(self._cluster.objects.values()):
            if obj["kind"] in KINDS or obj["kind"] == "Job":
                self.on_event(None, copy.deepcopy(obj))

    def on_event(self, event_type: str | None, obj: Raw) -> None:
        """Receive a watch event."""
        if obj["kind"] in KINDS:
            self.controller.on_resource_event(event_type, obj)
        elif obj["kind"] in CHILD_KINDS:
            self.controller.on_child_event(event_type, obj["kind"], obj)

    def restart_if_killed(self) -> bool:
        """Restart the process if it was killed, as the kubelet does. Returns whether it was. Raises other errors."""
        ended_tasks = [task for task in self.tasks if task.done()]
        for task in ended_tasks:
            if not isinstance(task.exception(), Killed):
                task.result()
        if ended_tasks:
            self.stop()
            self.restarts += 1
            self._start()
        return bool(ended_tasks)

    def stop(self) -> None:
        for task in self.tasks:
            task.cancel()


Outcomes = Mapping[tuple[str, int], str]
"""(role, attempt) -> how its pod ends: OOM or preempted. Pods that are not named succeed."""


class Controllers:
    """The Job and Deployment controllers and the kubelets. Each step advances every object by one state."""

    def __init__(self, cluster: SimulatedCluster, outcomes: Outcomes) -> None:
        self._cluster, self._outcomes = cluster, outcomes

    def step(self) -> None:
        for obj in list(self._cluster.objects.values()):
            match obj["kind"]:
                case "Job":
                    self._job(obj)
                case "Deployment":
                    self._deployment(obj)

    def _job(self, job: Raw) -> None:
        pod = self._cluster.objects.get(("Pod", NAMESPACE, f"{job['metadata']['name']}-x"))
        if job.get("status", {}).get("conditions") or job["spec"].get("suspend"):
            return
        if pod is None:
            self._cluster.put(_pod_of(job, "Job", {"phase": "Pending"}))
        elif pod["status"]["phase"] in ("Succeeded", "Failed"):
            self._cluster.put({**job, "status": _finished_status(pod["status"]["phase"] == "Succeeded")})
        else:
            self._cluster.put({**pod, "status": self._next_status(pod)})

    def _next_status(self, pod: Raw) -> Raw:
        """The next status of a pod: its first container runs, its main container runs, it has ended."""
        role = pod["metadata"]["labels"][ROLE_LABEL]
        attempt = int(pod["metadata"]["ownerReferences"][0]["name"].rpartition("-")[2])
        names = [each["name"] for each in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"])]
        started = {"startTime": pod["status"].get("startTime") or cluster_time()}
        step = pod["status"].get("step", 0)
        outcome = self._outcomes.get((role, attempt))
        if step < 2:
            current = -1 if step else 0
            states = {name: ended() for name in names[:current]} | {names[current]: running()}
            return {**_containers(pod, states), **started, "phase": "Running" if step else "Pending", "step": step + 1}
        states = {name: ended(message=_report_of(name, role)) for name in names}
        if outcome is None:
            return {**_containers(pod, states), **started, "phase": "Succeeded"}
        states[names[-1]] = {"OOM": ended(137, "", "OOMKilled"), "preempted": ended(75)}[outcome]
        return {**_containers(pod, states), **started, "phase": "Failed"}

    def _deployment(self, deployment: Raw) -> None:
        wanted = deployment["spec"].get("replicas", 1)
        counts = {name: wanted for name in ("replicas", "readyReplicas", "updatedReplicas", "availableReplicas")}
        generation = deployment["metadata"]["generation"]
        self._cluster.put({**deployment, "status": {**counts, "observedGeneration": generation, "conditions": []}})
        key = ("Pod", NAMESPACE, f"{deployment['metadata']['name']}-x")
        pod, template = self._cluster.objects.get(key), deployment["spec"]["template"]
        if pod and (not wanted or pod["metadata"].get("annotations") != template["metadata"].get("annotations")):
            self._cluster.remove(key)
        elif pod is None and wanted:
            pod = _pod_of(deployment, "ReplicaSet", {"phase": "Running", "startTime": cluster_time()})
            states = {each["name"]: ended() for each in pod["spec"].get("initContainers", ())}
            states |= {each["name"]: running() for each in pod["spec"]["containers"]}
            ready = [condition(name) for name in ("Initialized", "Ready")]
            self._cluster.put({**pod, "status": {**pod["status"], **_containers(pod, states), "conditions": ready}})


def _finished_status(succeeded: bool) -> Raw:
    """The status of a Job whose pod has ended."""
    type_, reason = ("Complete", "CompletionsReached") if succeeded else ("Failed", "BackoffLimitExceeded")
    end = {**condition(type_, True, reason), "lastTransitionTime": cluster_time()}
    return {"succeeded": int(succeeded), "failed": int(not succeeded), "conditions": [end]}


def _report_of(container: str, role: str) -> str:
    """The termination message of a container that succeeds."""
    digest = {"eval-baseline": "d1"}.get(role, "d2")
    more: dict[str, Any] = {
        "fetch": {"modelUri": "s3://store/m", "modelDigest": digest},
        "export": {"artifacts": [{"name": "merged", "uri": "s3://store/run/merged", "digest": "d2"}]},
        "evaluate": {"results": [{"benchmark": "support-qa", "metric": "accuracy", "value": 0.9}]},
    }
    return report(container, **more.get(container, {}))


def _pod_of(owner: Raw, kind: str, status: Raw) -> Raw:
    metadata, template = owner["metadata"], owner["spec"]["template"]
    reference = {"kind": kind, "name": metadata["name"], "uid": metadata["uid"], "controller": True}
    return {
        "kind": "Pod",
        "metadata": {
            **copy.deepcopy(template["metadata"]),
            "name": f"{metadata['name']}-x",
            "namespace": NAMESPACE,
            "ownerReferences": [reference],
        },
        "spec": copy.deepcopy(template["spec"]),
        "status": status,
    }


def _containers(pod: Raw, states: Mapping[str, Raw]) -> Raw:
    def statuses(containers: list[Raw]) -> list[Raw]:
        names = (each["name"] for each in containers)
        return [
            {"name": name, "restartCount": 0, "state": states.get(name, waiting("PodInitializing"))} for name in names
        ]

    spec = pod["spec"]
    return {
        "initContainerStatuses": statuses(spec.get("initContainers", [])),
        "containerStatuses": statuses(spec["containers"]),
    }


def comparable(cluster: SimulatedCluster, *kinds: str) -> dict[str, Any]:
    """The objects of these kinds, without versions, times and durations."""
    state = {
        f"{kind}/{name}": {
            "metadata": {part: obj["metadata"].get(part) for part in ("labels", "annotations", "ownerReferences")},
            "spec": obj.get("spec"),
            "status": without_durations(obj.get("status")) if kind in KINDS else None,
        }
        for (kind, _, name), obj in sorted(cluster.objects.items())
        if kind in kinds
    }
    result: dict[str, Any] = json.loads(TIME.sub("TIME", json.dumps(state)))
    return result


def without_durations(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: without_durations(each)
            for key, each in value.items()
            if not key.lower().endswith(("seconds", "hours"))
        }
    return [without_durations(each) for each in value] if isinstance(value, list) else value


def sent_events(cluster: SimulatedCluster) -> list[tuple[str, str]]:
    """(kind of the resource, reason) of every Event."""
    return sorted(
        (obj["involvedObject"]["kind"], obj["reason"]) for (kind, *_), obj in cluster.objects.items() if kind == "Event"
    )
