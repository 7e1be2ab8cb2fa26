"""A small cluster in memory that the operator's controller works on: a store with the API server's rules as far as they
matter to it, and what the Job and Deployment controllers and the kubelets would do, a step a second."""

from __future__ import annotations

import asyncio
import copy
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta, tzinfo
from typing import Any

from tests.unit.operator.memory_client import MemoryClient
from tests.unit.operator.plan.world import CONFIG, START, condition, ended, report, running, token, waiting
from tunesmith_operator.controller import Controller, Settings
from tunesmith_operator.informer import CHILD_KINDS
from tunesmith_operator.plan import KINDS
from tunesmith_operator.plan.names import ROLE_LABEL
from tunesmith_operator.plan.times import format_time
from tunesmith_operator.plan.types import Raw
from tunesmith_operator.progress_receiver import ProgressReports

NAMESPACE = "team"
BETWEEN_LISTS = 60
"""Seconds after which streams begin anew with a list, as a server makes them do."""
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")

Hear = Callable[[str | None, Raw], None]


class Killed(BaseException):
    """The process is no more. Not an Exception: nothing of it may carry on."""


def seconds() -> float:
    """The time on the loop's clock."""
    return asyncio.get_running_loop().time()


def now() -> str:
    """The time of the cluster."""
    return format_time(START + timedelta(seconds=seconds()))


class Clock:
    """In place of `datetime` in the controller's module: the cluster's time."""

    @staticmethod
    def now(_: tzinfo) -> Any:
        return START + timedelta(seconds=seconds())


class Twin(MemoryClient):
    """Generations, owner references, server-side apply of one manager, no write where nothing changes; and watchers."""

    def __init__(self) -> None:
        super().__init__()
        self.hear: Hear = lambda event_type, thing: None
        self.kill: tuple[int, bool] | None = None
        """Which write kills the operator, counted from 1, and whether it is carried out before."""
        self.count = 0
        self._births: Counter[tuple[str, str]] = Counter()
        self._applied: dict[tuple[str, str, str], Raw] = {}

    @property
    def version(self) -> str:
        return str(self._version)

    def put(self, thing: Raw) -> Raw:
        metadata = thing["metadata"]
        place = (thing["kind"], metadata["namespace"], metadata["name"])
        before = self.things.get(place)
        if before is None:
            self._births[place[0], place[2]] += 1
            uid = f"{place[0]}-{place[2]}-{self._births[place[0], place[2]]}".lower()
            fresh = {"uid": uid, "creationTimestamp": now(), "generation": 1, **metadata}
            stored = super().put({**thing, "metadata": fresh})
        else:
            changed = thing.get("spec") != before.get("spec")
            kept = {name: before["metadata"][name] for name in ("uid", "creationTimestamp", "generation")}
            kept["generation"] += changed
            new = {**thing, "metadata": {**metadata, **kept, "resourceVersion": before["metadata"]["resourceVersion"]}}
            if new == before:
                return copy.deepcopy(before)
            stored = super().put(new)
        self.hear("MODIFIED" if before else "ADDED", copy.deepcopy(stored))
        return stored

    def remove(self, place: tuple[str, str, str]) -> None:
        """Delete an object and, as the garbage collector would, what it owns."""
        gone = self.things.pop(place, None)
        if gone is None:
            return
        self._version += 1
        gone["metadata"]["resourceVersion"] = self.version
        self.hear("DELETED", copy.deepcopy(gone))
        for other, thing in list(self.things.items()):
            owners = [owner["uid"] for owner in thing["metadata"].get("ownerReferences", ())]
            if owners == [gone["metadata"]["uid"]]:
                self.remove(other)

    async def create(self, manifest: Raw) -> Raw:
        return await self._write(lambda: super(Twin, self).create(manifest))

    async def apply(self, manifest: Raw, uid: str | None) -> Raw:
        place = (manifest["kind"], manifest["metadata"]["namespace"], manifest["metadata"]["name"])
        there = self.things.get(place)
        whole = _merged(_without(there, self._applied.get(place, {})), manifest) if there else manifest
        answer = await self._write(lambda: super(Twin, self).apply(whole, uid))
        self._applied[place] = copy.deepcopy(manifest)
        return answer

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        async def carry_out() -> Raw:
            there = self.things.get((kind, namespace, name))
            if there and there["metadata"]["uid"] == uid:
                self.remove((kind, namespace, name))
            return {}

        self._called("delete", kind, name)
        await self._write(carry_out)

    async def write_status(self, resource: Raw, status: Raw) -> Raw:
        return await self._write(lambda: super(Twin, self).write_status(resource, json.loads(json.dumps(status))))

    async def _write(self, carry_out: Callable[[], Awaitable[Raw]]) -> Raw:
        self.count += 1
        if self.kill == (self.count, False):
            raise Killed
        answer = await carry_out()
        if self.kill == (self.count, True):
            raise Killed
        return answer


def _merged(old: Any, new: Any) -> Any:
    """`new` over `old`, field by field."""
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{name: _merged(old.get(name), value) for name, value in new.items()}}
    return copy.deepcopy(new)


def _without(thing: Any, applied: Any) -> Any:
    """`thing` without the fields that were applied before."""
    if not isinstance(thing, dict) or not isinstance(applied, dict):
        return thing
    left = {name: _without(value, applied.get(name)) for name, value in thing.items()}
    return {name: value for name, value in left.items() if name not in applied or isinstance(value, dict)}


class Operator:
    """The controller, with two workers, as one process after the other would have it."""

    def __init__(self, twin: Twin) -> None:
        self._twin = twin
        self.restarts = 0
        self._start()

    def _start(self) -> None:
        settings = Settings(CONFIG, token, "operator")
        self.controller = Controller(self._twin, KINDS, ProgressReports(), settings)
        work = (self.controller.work(), self.controller.work(), self.controller.resync())
        self.tasks = [asyncio.create_task(each) for each in work]
        self.list_anew()

    def list_anew(self) -> None:
        """All streams begin anew."""
        for kind in CHILD_KINDS:
            self.controller.on_stream_start(kind, None, self._twin.version)
        for thing in list(self._twin.things.values()):
            if thing["kind"] in KINDS or thing["kind"] == "Job":
                self.hear(None, copy.deepcopy(thing))

    def hear(self, event_type: str | None, thing: Raw) -> None:
        """A watch event."""
        if thing["kind"] in KINDS:
            self.controller.on_resource_event(event_type, thing)
        elif thing["kind"] in CHILD_KINDS:
            self.controller.on_child_event(event_type, thing["kind"], thing)

    def start_again_if_dead(self) -> bool:
        """As the kubelet does with a container. Whether it was dead."""
        dead = [task for task in self.tasks if task.done()]
        for task in dead:
            if not isinstance(task.exception(), Killed):
                task.result()
        if dead:
            self.stop()
            self.restarts += 1
            self._start()
        return bool(dead)

    def stop(self) -> None:
        for task in self.tasks:
            task.cancel()


Fate = Mapping[tuple[str, int], str]
"""(role, attempt) -> how its pod ends; what is not named ends well."""


class Environment:
    """The controllers and kubelets of the cluster. Each turn, everything that is under way comes a step further."""

    def __init__(self, twin: Twin, fate: Fate) -> None:
        self._twin, self._fate = twin, fate

    def turn(self) -> None:
        for thing in list(self._twin.things.values()):
            match thing["kind"]:
                case "Job":
                    self._job(thing)
                case "Deployment":
                    self._deployment(thing)

    def _job(self, job: Raw) -> None:
        pod = self._twin.things.get(("Pod", NAMESPACE, f"{job['metadata']['name']}-x"))
        if job.get("status", {}).get("conditions") or job["spec"].get("suspend"):
            return
        if pod is None:
            self._twin.put(_pod(job, "Job", {"phase": "Pending"}))
            return
        if pod["status"]["phase"] in ("Succeeded", "Failed"):
            well = pod["status"]["phase"] == "Succeeded"
            end = condition(
                "Complete" if well else "Failed", True, "CompletionsReached" if well else "BackoffLimitExceeded"
            )
            status = {
                "succeeded": int(well),
                "failed": int(not well),
                "conditions": [{**end, "lastTransitionTime": now()}],
            }
            self._twin.put({**job, "status": status})
            return
        self._twin.put({**pod, "status": self._next(pod)})

    def _next(self, pod: Raw) -> Raw:
        """The pod's status a step later: its first container runs, its main container runs, it has ended."""
        role = pod["metadata"]["labels"][ROLE_LABEL]
        attempt = int(pod["metadata"]["ownerReferences"][0]["name"].rpartition("-")[2])
        names = [one["name"] for one in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"])]
        started = {"startTime": pod["status"].get("startTime") or now()}
        at = pod["status"].get("step", 0)
        fate = self._fate.get((role, attempt), "well")
        if at < 2:
            states = {name: ended() for name in names[: -1 if at else 0]} | {names[-1 if at else 0]: running()}
            return {**_containers(pod, states), **started, "phase": "Running" if at else "Pending", "step": at + 1}
        states = {name: ended(message=_says(name, role)) for name in names}
        if fate == "well":
            return {**_containers(pod, states), **started, "phase": "Succeeded"}
        states[names[-1]] = {"OOM": ended(137, "", "OOMKilled"), "preempted": ended(75)}[fate]
        return {**_containers(pod, states), **started, "phase": "Failed"}

    def _deployment(self, thing: Raw) -> None:
        wanted = thing["spec"].get("replicas", 1)
        counts = {name: wanted for name in ("replicas", "readyReplicas", "updatedReplicas", "availableReplicas")}
        generation = thing["metadata"]["generation"]
        self._twin.put({**thing, "status": {**counts, "observedGeneration": generation, "conditions": []}})
        name = ("Pod", NAMESPACE, f"{thing['metadata']['name']}-x")
        pod = self._twin.things.get(name)
        template = thing["spec"]["template"]
        if pod and (not wanted or pod["metadata"].get("annotations") != template["metadata"].get("annotations")):
            self._twin.remove(name)
        elif pod is None and wanted:
            pod = _pod(thing, "ReplicaSet", {"phase": "Running", "startTime": now()})
            states = {one["name"]: ended() for one in pod["spec"].get("initContainers", ())}
            states |= {one["name"]: running() for one in pod["spec"]["containers"]}
            ready = [condition(name) for name in ("Initialized", "Ready")]
            self._twin.put({**pod, "status": {**pod["status"], **_containers(pod, states), "conditions": ready}})


def _says(container: str, role: str) -> str:
    digest = {"tune": "d2", "eval-model": "d2", "eval-baseline": "d1"}.get(role, "d2")
    more: dict[str, Any] = {
        "fetch": {"modelUri": "s3://store/m", "modelDigest": digest},
        "export": {"artifacts": [{"name": "merged", "uri": "s3://store/run/merged", "digest": "d2"}]},
        "evaluate": {"results": [{"benchmark": "support-qa", "metric": "accuracy", "value": 0.9}]},
    }
    return report(container, **more.get(container, {}))


def _pod(owner: Raw, kind: str, status: Raw) -> Raw:
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
        there = [(one["name"], states.get(one["name"], waiting("PodInitializing"))) for one in containers]
        return [{"name": name, "restartCount": 0, "state": state} for name, state in there]

    spec = pod["spec"]
    return {
        "initContainerStatuses": statuses(spec.get("initContainers", [])),
        "containerStatuses": statuses(spec["containers"]),
    }


def normal(twin: Twin, *kinds: str) -> dict[str, Any]:
    """What there is of these kinds, without versions and times."""
    state = {
        f"{kind}/{name}": {
            "metadata": {part: thing["metadata"].get(part) for part in ("labels", "annotations", "ownerReferences")},
            "spec": thing.get("spec"),
            "status": timeless(thing.get("status")) if kind in KINDS else None,
        }
        for (kind, _, name), thing in sorted(twin.things.items())
        if kind in kinds
    }
    result: dict[str, Any] = json.loads(TIME.sub("TIME", json.dumps(state)))
    return result


def timeless(value: Any) -> Any:
    """Without how long things took."""
    if isinstance(value, dict):
        return {key: timeless(one) for key, one in value.items() if not key.lower().endswith(("seconds", "hours"))}
    return [timeless(one) for one in value] if isinstance(value, list) else value


def told(twin: Twin) -> list[tuple[str, str]]:
    """The Events there are: about what, and why."""
    return sorted(
        (thing["involvedObject"]["kind"], thing["reason"])
        for (kind, *_), thing in twin.things.items()
        if kind == "Event"
    )
