"""How fast and how lean the operator is, on a real control plane without nodes: `python -m tests.bench.bench_operator`.

FineTuneJobs are applied all at once; pods are reported as finished as soon as they are there. Prints a table.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import urllib3

from devcluster.controlplane import AUDIT_EVERYTHING, ControlPlane
from tests.apiserver.chart import VALUES, render, without_workloads
from tests.apiserver.cluster import KINDS, Cluster, Kubelet, Raw, administrator
from tests.apiserver.finetunejobs import MESSAGES, tune
from tests.apiserver.operator_process import USER, OperatorProcess

Rows = list[tuple[str, str]]


@dataclass
class Watch:
    """When objects were first seen, by name, and their newest state; fed by a watch stream in a thread."""

    cluster: Cluster
    kind: str
    heard: Callable[[Raw], None] = lambda thing: None
    first: dict[str, float] = field(default_factory=dict)

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        url = f"{self.cluster.plane.url}{KINDS[self.kind].path(self.cluster.namespace)}?watch=1&resourceVersion=0"
        stream = self.cluster.http.request("GET", url, preload_content=False, timeout=None)
        with suppress(urllib3.exceptions.ProtocolError):  # the API server has been stopped
            for line in stream:
                thing = json.loads(line)["object"]
                self.first.setdefault(thing["metadata"]["name"], time.monotonic())
                self.heard(thing)


@dataclass
class Usage:
    """CPU seconds and resident memory of a process."""

    pid: int

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def mib(self, line: str = "VmRSS") -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(next(row for row in status.splitlines() if row.startswith(line)).split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="FineTuneJobs applied at once (default 200)")
    for name, value in measure(parser.parse_args().count):
        print(f"{name:<58} {value:>14}")


def measure(count: int) -> Rows:
    """The table's rows: what, and how much."""
    with tempfile.TemporaryDirectory() as folder, ControlPlane(audit_policy=AUDIT_EVERYTHING) as plane:
        cluster = Cluster(plane, administrator(plane, connections=16), "bench")
        cluster.kubectl("apply", "--filename", "-", stdin=without_workloads(render(plane, VALUES)))
        cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "customresourcedefinitions", "--all")
        cluster.kubectl("create", "namespace", "bench")
        with leading(plane, cluster, Path(folder) / "first") as (operator, seconds):
            rows = [("operator: start to leading", f"{seconds:.1f} s"), *lives(cluster, operator, count)]
        with leading(plane, cluster, Path(folder) / "second") as (operator, seconds):
            rows += restart(cluster, operator, count, seconds)
        return rows


@contextmanager
def leading(plane: ControlPlane, cluster: Cluster, folder: Path) -> Iterator[tuple[OperatorProcess, float]]:
    """An operator that leads, and how long that took."""
    operator = OperatorProcess(plane, folder, "operator-0", values={"leaderElection": {}})
    started = time.monotonic()
    operator.start()
    try:
        cluster.until("the operator leads", operator.leads, seconds=120)
        yield operator, time.monotonic() - started
    finally:
        operator.stop()


def lives(cluster: Cluster, operator: OperatorProcess, count: int) -> Rows:
    """`count` FineTuneJobs from apply to Succeeded."""
    usage = Usage(operator.process.pid)
    idle, cpu_before = usage.mib(), usage.cpu_seconds()
    applied: dict[str, float] = {}
    finished: dict[str, float] = {}

    def reported(resource: Raw) -> None:
        if (resource.get("status") or {}).get("phase") == "Succeeded":
            finished.setdefault(resource["metadata"]["name"], time.monotonic())

    with ThreadPoolExecutor(8) as kubelets, ThreadPoolExecutor(8) as users:
        ended: set[str] = set()

        def pod_seen(pod: Raw) -> None:
            if pod["metadata"]["name"] not in ended:
                ended.add(pod["metadata"]["name"])
                kubelets.submit(lambda: Kubelet(cluster, pod).ends(MESSAGES))

        jobs = Watch(cluster, "Job")
        for watch in (jobs, Watch(cluster, "FineTuneJob", reported), Watch(cluster, "Pod", pod_seen)):
            watch.start()

        def apply(number: int) -> None:
            name = f"tune-{number}"
            tune(cluster, name)
            applied[name] = time.monotonic()

        begun = time.monotonic()
        list(users.map(apply, range(count)))
        wait(cluster, operator, "every Job exists", lambda: len(jobs.first) >= count)
        all_jobs = time.monotonic() - begun
        wait(cluster, operator, "every resource has succeeded", lambda: len(finished) >= count)
        all_finished = time.monotonic() - begun

    time.sleep(2)
    latencies = sorted(max(0.0, jobs.first[f"{name}-tune-1"] - when) for name, when in applied.items())
    writes = Counter("events" if "events/" in write else "objects" for write in cluster.writes(USER))
    requests = operator.metric("tunesmith_api_requests_total")
    return [
        (f"{count} FineTuneJobs applied at once: last accepted after", f"{max(applied.values()) - begun:.1f} s"),
        ("  every child Job exists after", f"{all_jobs:.1f} s"),
        ("  every one has succeeded after", f"{all_finished:.1f} s"),
        ("  apply to child Job, p50", f"{statistics.median(latencies) * 1000:.0f} ms"),
        ("  apply to child Job, p95", f"{latencies[int(len(latencies) * 0.95)] * 1000:.0f} ms"),
        ("  object writes per life", f"{writes['objects'] / count:.2f}"),
        ("  Events per life", f"{writes['events'] / count:.2f}"),
        ("  requests per life", f"{requests / count:.1f}"),
        ("  looks per life", f"{operator.metric('tunesmith_reconcile_total') / count:.1f}"),
        ("  operator CPU per life", f"{(usage.cpu_seconds() - cpu_before) / count * 1000:.0f} ms"),
        ("operator RSS: idle, then at its peak", f"{idle:.0f}, {usage.mib('VmHWM'):.0f} MiB"),
    ]


def restart(cluster: Cluster, operator: OperatorProcess, count: int, seconds: float) -> Rows:
    """The operator starts where `count` resources have finished."""
    usage = Usage(operator.process.pid)
    heard = count * len(("FineTuneJob", "Job", "Pod"))
    begun = time.monotonic()
    wait(cluster, operator, "it has heard of all", lambda: operator.metric("tunesmith_watch_events_total") >= heard)
    wait(cluster, operator, "its queue is empty", lambda: operator.metric("tunesmith_queue_depth") == 0)
    return [
        (f"restart with {count} finished: caught up after", f"{seconds + time.monotonic() - begun:.1f} s"),
        ("  looks at resources", f"{operator.metric('tunesmith_reconcile_total'):.0f}"),
        ("  CPU", f"{usage.cpu_seconds():.1f} s"),
        ("  RSS at its peak", f"{usage.mib('VmHWM'):.0f} MiB"),
    ]


def wait(cluster: Cluster, operator: OperatorProcess, what: str, look: Callable[[], bool]) -> None:
    """Wait until `look`, unless the operator ends."""
    cluster.until(what, lambda: look() or operator.process.poll() is not None, seconds=600)
    assert operator.process.poll() is None, operator.log()[-1]


if __name__ == "__main__":
    main()
