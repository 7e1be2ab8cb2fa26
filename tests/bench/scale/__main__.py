"""The operator under load, on a real control plane with fake nodes: `python -m tests.bench.scale [--peers] [--races 5]`.

Prints its figures. --peers adds the cost of the same load as plain Jobs and with Kubeflow Trainer, in the same run.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from devcluster.builds import CHECKERS, PROGRAMS
from devcluster.standalone import ControlPlane
from tests.apiserver.cluster import Cluster, Raw, administrator
from tests.apiserver.operator_process import USER, OperatorProcess
from tests.bench.scale.contestants import (
    ONE_CONTAINER,
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
from tests.bench.scale.table import race_table, row

IDLE_SECONDS = 30.0
REPLICAS = 5

Rows = list[tuple[str, str]]
Contest = Callable[[int], Result]
"""Runs a race of so many resources on a control plane of its own."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000, help="FineTuneJobs created at once")
    parser.add_argument("--finished", type=int, default=5000, help="finished resources when the operator restarts")
    parser.add_argument("--services", type=int, default=200, help="InferenceServices of five pods each")
    parser.add_argument("--peers", action="store_true", help="race plain Jobs and Kubeflow Trainer as well")
    parser.add_argument("--races", type=int, default=1, help="repeat the race; prints median and range of each figure")
    options = parser.parse_args()
    contests = PEER_CONTESTS if options.peers else (tunesmith_race,)
    for line in report(contests, options.jobs, options.races, options.finished, options.services):
        print(line, flush=True)


def report(contests: Sequence[Contest], jobs: int, races: int, finished: int, services: int) -> Iterator[str]:
    """Yield the lines of the tables as soon as their figures are measured."""
    yield from map(row, machine())
    results: list[list[Result]] = []
    for number in range(1, races + 1):
        results.append([contest(jobs) for contest in contests])
        times = ", ".join(f"{result.name} {result.jobs:.0f} s" for result in results[-1])
        print(f"race {number} of {races}: every child Job exists after: {times}", file=sys.stderr, flush=True)
    yield from race_table(results)
    with tempfile.TemporaryDirectory() as folder, control_plane(USER) as plane:
        yield from map(
            row, [*many_finished(plane, Path(folder), finished), *many_services(plane, Path(folder), services)]
        )


def machine() -> Rows:
    """The machine and the versions that the figures hold for."""
    model = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    versions = {program.name: program.version for program in PROGRAMS + CHECKERS}
    names = ("kubernetes", "kwok", "trainer-controller-manager", "jobset-controller-manager")
    return [
        ("cores", f"{os.cpu_count()} x {model.partition(': ')[2]}"),
        ("Python", platform.python_version()),
        *((name, versions[name]) for name in names),
    ]


def plain_race(name: str, template: Raw) -> Contest:
    """A race of plain Jobs, which shows the cost of the control plane itself."""

    def contest(count: int) -> Result:
        with control_plane() as plane:
            return race(_cluster(plane, "plain"), plain_jobs(name, template), count)

    return contest


def trainer_race(count: int) -> Result:
    with tempfile.TemporaryDirectory() as folder, control_plane(*PEER_USERS) as plane:
        cluster = _cluster(plane, "trainer")
        with trainer(plane, cluster, Path(folder)) as contestant:
            return race(cluster, contestant, count)


def tunesmith_race(count: int) -> Result:
    with tempfile.TemporaryDirectory() as folder, control_plane(USER) as plane:
        cluster = _cluster(plane, "tunesmith")
        install_chart(plane, cluster)
        with tunesmith(plane, Path(folder)) as contestant:
            return race(cluster, contestant, count)


PEER_CONTESTS: tuple[Contest, ...] = (
    plain_race("plain Jobs", ONE_CONTAINER),
    plain_race("... of our pods", our_pod()),
    trainer_race,
    tunesmith_race,
)


def many_finished(plane: ControlPlane, folder: Path, count: int) -> Rows:
    """Measure an operator that starts beside `count` finished resources."""
    cluster = _cluster(plane, "finished")
    install_chart(plane, cluster)
    with tunesmith(plane, folder / "before") as contestant:
        race(cluster, contestant, 1)
    fill(cluster, Sample.of(cluster, "run-0"), count - 1)
    started = time.monotonic()
    with leading_operator(plane, folder / "after") as operator:
        process = Process(operator.process.pid)
        cluster.until("the operator has caught up", lambda: _has_caught_up(operator, count), seconds=300)
        caught_up, cpu, peak = time.monotonic() - started, process.cpu_seconds(), process.mib("VmHWM")
        time.sleep(5)
        before = process.cpu_seconds()
        time.sleep(IDLE_SECONDS)
        idle = (process.cpu_seconds() - before) / IDLE_SECONDS
        return [
            (f"restart with {count} finished: caught up after", f"{caught_up:.1f} s"),
            ("  reconciles", f"{operator.metric('tunesmith_reconcile_total'):.0f}"),
            ("  CPU", f"{cpu:.1f} s"),
            ("  RSS at the peak, then", f"{peak:.0f}, {process.mib():.0f} MiB"),
            ("  CPU when nothing happens", f"{idle:.2%}"),
        ]


def many_services(plane: ControlPlane, folder: Path, count: int) -> Rows:
    """Measure `count` services of five pods each, created at once."""
    cluster = _cluster(plane, "services")
    spec = {"model": {"uri": "s3://models/base"}, "replicas": REPLICAS}
    with _services(plane, folder / "services", spec) as contestant:
        result = race(cluster, contestant, count)
    return [
        (f"{count} InferenceServices, {count * REPLICAS} pods: all are Ready after", f"{result.finished:.0f} s"),
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
    observed = operator.metric("tunesmith_resources")
    return observed >= count and operator.metric("tunesmith_queue_depth") == 0


def _cluster(plane: ControlPlane, namespace: str) -> Cluster:
    return Cluster(plane, administrator(plane, connections=16), namespace)


if __name__ == "__main__":
    main()
