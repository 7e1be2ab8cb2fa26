"""The operator under load, on a real control plane with fake nodes: `python -m tests.bench.scale [--peers]`.

Prints one table. With --peers also what the same load costs as plain Jobs and with Kubeflow Trainer, in the same run.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devcluster.builds import CHECKERS, PROGRAMS
from devcluster.controlplane import ControlPlane
from tests.apiserver.cluster import Cluster, Raw, administrator
from tests.apiserver.operator_process import USER, OperatorProcess
from tests.bench.scale.contestants import (
    PEER_USERS,
    install_chart,
    leading_operator,
    our_pod,
    plain_jobs,
    trainer,
    tunesmith,
)
from tests.bench.scale.finished import Sample, fill
from tests.bench.scale.nodes import control_plane
from tests.bench.scale.race import Contestant, Process, Result, race

IDLE_SECONDS = 30.0
REPLICAS = 5

Rows = list[tuple[str, str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000, help="FineTuneJobs created at once")
    parser.add_argument("--finished", type=int, default=5000, help="finished resources at the operator's restart")
    parser.add_argument("--services", type=int, default=200, help="InferenceServices of five pods each")
    parser.add_argument("--peers", action="store_true", help="plain Jobs and Kubeflow Trainer as well")
    given = parser.parse_args()
    for line in report(given.jobs, given.finished, given.services, given.peers):
        print(line, flush=True)


def report(jobs: int, finished: int, services: int, peers: bool) -> Iterator[str]:
    """The lines of the tables, as they are known."""
    yield from map(row, machine())
    results = [jobs_race(jobs)]
    if peers:
        ours = plain_jobs("... of our pods", our_pod())
        results = [floor(plain_jobs(), jobs), floor(ours, jobs), trainer_race(jobs), *results]
    yield from side_by_side(results)
    with tempfile.TemporaryDirectory() as folder, control_plane(USER) as plane:
        yield from map(
            row, [*many_finished(plane, Path(folder), finished), *many_services(plane, Path(folder), services)]
        )


def row(one: tuple[str, str]) -> str:
    return f"{one[0]:<62}{one[1]:>22}"


def machine() -> Rows:
    """What it was measured on."""
    model = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    versions = {one.name: one.version for one in PROGRAMS + CHECKERS}
    names = ("kubernetes", "kwok", "trainer-controller-manager", "jobset-controller-manager")
    return [
        ("cores", f"{os.cpu_count()} x {model.partition(': ')[2]}"),
        ("Python", platform.python_version()),
        *((name, versions[name]) for name in names),
    ]


def floor(contestant: Contestant, count: int) -> Result:
    """Plain Jobs: what the control plane itself takes."""
    with control_plane() as plane:
        return race(_cluster(plane, "plain"), contestant, count)


def trainer_race(count: int) -> Result:
    with tempfile.TemporaryDirectory() as folder, control_plane(*PEER_USERS) as plane:
        cluster = _cluster(plane, "trainer")
        with trainer(plane, cluster, Path(folder)) as contestant:
            return race(cluster, contestant, count)


def jobs_race(count: int) -> Result:
    with tempfile.TemporaryDirectory() as folder, control_plane(USER) as plane:
        cluster = _cluster(plane, "tunesmith")
        install_chart(plane, cluster)
        with tunesmith(plane, Path(folder)) as contestant:
            return race(cluster, contestant, count)


def side_by_side(results: list[Result]) -> Iterator[str]:
    """A column for each contestant."""
    yield f"\n{results[0].count} at once" + "".join(f"{one.name:>20}" for one in results).rjust(20 * len(results) + 42)
    rows = (
        ("accepted by the API server, s", lambda it: f"{it.accepted:.0f}"),
        ("every child Job exists, s", lambda it: f"{it.jobs:.0f}"),
        ("every one has finished, s", lambda it: f"{it.finished:.0f}"),
        ("pod's end to resource's end, p50 and p99, s", lambda it: f"{it.delay(0.5):.1f}  {it.delay(0.99):.1f}"),
        ("reads per job, by the managers", lambda it: f"{it.reads / it.count:.1f}"),
        ("object writes per job", lambda it: f"{it.writes / it.count:.2f}"),
        ("Events per job", lambda it: f"{it.events / it.count:.2f}"),
        ("CPU, s", lambda it: f"{it.cpu:.1f}"),
        ("CPU of the control plane, s", lambda it: f"{sum(it.plane_cpu.values()):.0f}"),
        ("RSS at the peak, MiB", lambda it: f"{it.rss:.0f}"),
    )
    for name, value in rows:
        yield f"{name:<52}" + "".join(f"{value(one):>20}" for one in results)
    yield ""


def many_finished(plane: ControlPlane, folder: Path, count: int) -> Rows:
    """An operator that starts where so many have finished."""
    cluster = _cluster(plane, "finished")
    install_chart(plane, cluster)
    with tunesmith(plane, folder / "before") as contestant:
        race(cluster, contestant, 1)
    fill(cluster, Sample.of(cluster, "run-0"), count - 1)
    begun = time.monotonic()
    with leading_operator(plane, folder / "after") as operator:
        process = Process(operator.process.pid)
        cluster.until("it has caught up", lambda: _has_caught_up(operator, count), seconds=300)
        caught_up, cpu, peak = time.monotonic() - begun, process.cpu_seconds(), process.mib("VmHWM")
        time.sleep(5)
        before = process.cpu_seconds()
        time.sleep(IDLE_SECONDS)
        idle = (process.cpu_seconds() - before) / IDLE_SECONDS
        return [
            (f"restart with {count} finished: caught up after", f"{caught_up:.1f} s"),
            ("  looks at resources", f"{operator.metric('tunesmith_reconcile_total'):.0f}"),
            ("  CPU", f"{cpu:.1f} s"),
            ("  RSS at the peak, then", f"{peak:.0f}, {process.mib():.0f} MiB"),
            ("  CPU when nothing happens", f"{idle:.2%}"),
        ]


def many_services(plane: ControlPlane, folder: Path, count: int) -> Rows:
    """So many services at once, of five pods each."""
    cluster = _cluster(plane, "services")
    spec = {"model": {"uri": "s3://models/base"}, "replicas": REPLICAS}
    with _services(plane, folder / "services", spec) as contestant:
        result = race(cluster, contestant, count)
    return [
        (f"{count} InferenceServices, {count * REPLICAS} pods: every one is Ready after", f"{result.finished:.0f} s"),
        ("  object writes, Events per service", f"{result.writes / count:.1f}, {result.events / count:.1f}"),
        ("  reads per service", f"{result.reads / count:.1f}"),
        ("  CPU", f"{result.cpu:.1f} s"),
        ("  RSS at the peak", f"{result.rss:.0f} MiB"),
    ]


@contextmanager
def _services(plane: ControlPlane, folder: Path, spec: Raw) -> Iterator[Contestant]:
    with tunesmith(plane, folder) as contestant:
        contestant.child = "Deployment"
        contestant.manifest = lambda name: {"kind": "InferenceService", "metadata": {"name": name}, "spec": spec}
        contestant.is_finished = lambda resource: (resource.get("status") or {}).get("phase") == "Ready"
        yield contestant


def _has_caught_up(operator: OperatorProcess, count: int) -> bool:
    heard = operator.metric("tunesmith_resources")
    return heard >= count and operator.metric("tunesmith_queue_depth") == 0


def _cluster(plane: ControlPlane, namespace: str) -> Cluster:
    return Cluster(plane, administrator(plane, connections=16), namespace)


if __name__ == "__main__":
    main()
