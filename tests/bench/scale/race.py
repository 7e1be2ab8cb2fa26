"""A race: create manifests, wait until all resources have finished, and count the requests of the managers."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import urllib3

from devcluster.processes import Record
from devcluster.standalone import ControlPlane
from tests.apiserver.cluster import KINDS, Cluster, Raw

CREATORS = 8
WRITES = ("create", "update", "patch", "delete", "deletecollection")
PATIENCE = 900.0


@dataclass
class Process:
    """CPU seconds and resident memory of a process."""

    pid: int

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def mib(self, line: str = "VmRSS") -> float:
        """VmRSS: now; VmHWM: at its peak."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(next(row for row in status.splitlines() if row.startswith(line)).split()[1]) / 1024


@dataclass
class Contestant:
    """A contestant of a race. `managers` are its processes, `users` their names in the audit log."""

    name: str
    manifest: Callable[[str], Raw]
    is_finished: Callable[[Raw], bool]
    managers: Sequence[Process] = ()
    users: Sequence[str] = ()
    child: str = "Job"
    """The kind of the child that each resource has."""


@dataclass
class Result:
    """The result of a race. Times are in seconds since its start."""

    name: str
    count: int
    accepted: float
    jobs: float
    finished: float
    delays: list[float]
    """Sorted delays from the end of a pod to the end of its resource, by watch events."""
    reads: int
    writes: int
    events: int
    cpu: float
    rss: float
    """MiB at the peak, of all managers together."""
    plane_cpu: dict[str, float]
    """CPU seconds of the control plane's programs, by name."""

    def delay(self, share: float) -> float:
        return self.delays[min(int(len(self.delays) * share), len(self.delays) - 1)] if self.delays else 0.0


@dataclass
class Watch:
    """The times at which objects first matched, by name, from a watch stream in a thread.

    The API server ends the stream of a slow reader. The next stream begins with all objects.
    """

    plane: ControlPlane
    http: urllib3.PoolManager
    path: str
    name_of: Callable[[Raw], str | None]
    """The name to record for an object; None if the object does not match (yet)."""
    seen: dict[str, float] = field(default_factory=dict)

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        url = f"{self.plane.url}{self.path}?watch=1"
        with suppress(urllib3.exceptions.MaxRetryError):  # the API server has been stopped
            while True:
                with suppress(urllib3.exceptions.ProtocolError, ValueError):  # the stream was cut
                    for line in self.http.request("GET", url, preload_content=False, timeout=None):
                        if name := self.name_of(orjson.loads(line)["object"]):
                            self.seen.setdefault(name, time.monotonic())


def race(cluster: Cluster, contestant: Contestant, count: int) -> Result:
    """Create `count` manifests of `contestant` in the (new) namespace of `cluster`, and wait until all have finished."""
    cluster.kubectl("create", "namespace", cluster.namespace)
    names = [f"run-{number}" for number in range(count)]
    manifests = [contestant.manifest(name) for name in names]
    kind = manifests[0]["kind"]
    finished = _watch(cluster, kind, lambda it: it["metadata"]["name"] if contestant.is_finished(it) else None)
    children = _watch(cluster, contestant.child, lambda it: it["metadata"]["name"])
    pods = _watch(cluster, "Pod", _run_of_finished_pod)
    before = _count_requests(cluster, contestant.users)
    cpu, plane = [manager.cpu_seconds() for manager in contestant.managers], _control_plane(cluster.plane)

    started = time.monotonic()
    with ThreadPoolExecutor(CREATORS) as creators:
        list(creators.map(cluster.create, manifests))
    accepted = time.monotonic() - started
    for what in (children, finished):
        _until(lambda what=what: len(what.seen) >= count, contestant)  # type: ignore[misc]
    time.sleep(3)  # for the last writes

    counts = _count_requests(cluster, contestant.users)
    counts.subtract(before)
    ends = [(finished.seen[name], pods.seen.get(name)) for name in names]
    return Result(
        name=contestant.name,
        count=count,
        accepted=accepted,
        jobs=max(children.seen.values()) - started,
        finished=max(finished.seen.values()) - started,
        delays=sorted(max(0.0, end - pod) for end, pod in ends if pod is not None),
        reads=counts["reads"],
        writes=counts["writes"],
        events=counts["events"],
        cpu=sum(manager.cpu_seconds() for manager in contestant.managers) - sum(cpu),
        rss=sum(manager.mib("VmHWM") for manager in contestant.managers),
        plane_cpu={name: after - plane[name] for name, after in _control_plane(cluster.plane).items()},
    )


def _control_plane(plane: ControlPlane) -> dict[str, float]:
    """CPU seconds of the control plane's programs so far."""
    records = {path.stem: Record.read(path) for path in (plane.directory / "run").glob("*.pid")}
    return {name: Process(record.identity.pid).cpu_seconds() for name, record in records.items() if record}


def _watch(cluster: Cluster, kind: str, name_of: Callable[[Raw], str | None]) -> Watch:
    watch = Watch(cluster.plane, cluster.http, KINDS[kind].path(cluster.namespace), name_of)
    watch.start()
    return watch


def _run_of_finished_pod(pod: Raw) -> str | None:
    """`run-7` of the pod `run-7-tune-1-x2k4z`."""
    done = (pod.get("status") or {}).get("phase") == "Succeeded"
    return "-".join(pod["metadata"]["name"].split("-")[:2]) if done else None


def _until(look: Callable[[], bool], contestant: Contestant) -> None:
    end = time.monotonic() + PATIENCE
    while not look():
        for manager in contestant.managers:
            manager.cpu_seconds()  # raises when it has ended
        assert time.monotonic() < end, f"{contestant.name} has not finished within {PATIENCE:g} s"
        time.sleep(0.2)


def _count_requests(cluster: Cluster, users: Sequence[str]) -> Counter[str]:
    """Count the reads, the writes of objects (without Leases) and of Events by these users so far."""
    counts: Counter[str] = Counter()
    for entry in _audit(cluster.plane.audit_log):
        if entry["user"]["username"] not in users:
            continue
        resource = (entry.get("objectRef") or {}).get("resource")
        if entry["verb"] not in WRITES:
            counts["reads"] += 1
        elif resource != "leases":
            counts["events" if resource == "events" else "writes"] += 1
    return counts


def _audit(log: Path) -> Iterator[dict[str, Any]]:
    if log.exists():
        with log.open() as lines:
            yield from map(json.loads, lines)
