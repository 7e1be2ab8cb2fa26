"""When a cluster is rebuilt, and when its data are kept."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from devcluster import cluster, mounts, processes
from devcluster.errors import ClusterError, ComponentEnded
from devcluster.paths import Paths
from devcluster.processes import Component, Identity, Supervisor

BROKEN_ETCD = ComponentEnded("etcd", "etcd ended while it started")


class Attempts:
    """Replaces start and removal of the cluster. Each attempt has an error, or None for success."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *outcomes: ClusterError | None) -> None:
        self.outcomes = list(outcomes)
        self.kept: list[tuple[str, ...]] = []
        monkeypatch.setattr(cluster, "_bring_up", self.bring_up)
        monkeypatch.setattr(cluster, "take_down", self.take_down)

    def bring_up(self, _: Paths) -> None:
        outcome = self.outcomes.pop(0)
        if outcome:
            raise outcome

    def take_down(self, _: Paths, keep: tuple[str, ...] = ()) -> None:
        self.kept.append(keep)


@pytest.fixture
def used(tmp_path: Path) -> Paths:
    """A cluster that has run."""
    (tmp_path / "cluster" / "etcd").mkdir(parents=True)
    return Paths(tmp_path)


@pytest.mark.parametrize("component", ["etcd", "containerd"])
def test_a_cluster_whose_data_are_broken_is_rebuilt_and_the_buckets_stay(
    used: Paths, monkeypatch: pytest.MonkeyPatch, component: str
) -> None:
    attempts = Attempts(monkeypatch, ComponentEnded(component, "no"), None)
    cluster.up(used)
    assert attempts.outcomes == []
    assert [{"s3", "s3-credentials"} <= set(kept) for kept in attempts.kept] == [True]


@pytest.mark.parametrize(
    "error",
    [ClusterError("kube-apiserver is not ready after 60s"), ComponentEnded("kube-apiserver", "no")],
    ids=["slow", "broken, but not for its data"],
)
def test_no_data_are_deleted_for_another_reason(
    used: Paths, monkeypatch: pytest.MonkeyPatch, error: ClusterError
) -> None:
    attempts = Attempts(monkeypatch, error)
    with pytest.raises(ClusterError, match=str(error)):
        cluster.up(used)
    assert attempts.kept == []


def test_a_new_cluster_that_does_not_start_is_not_rebuilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = Attempts(monkeypatch, BROKEN_ETCD)
    with pytest.raises(ClusterError, match="etcd ended"):
        cluster.up(Paths(tmp_path))
    assert attempts.kept == []


def test_a_rebuild_is_tried_once(used: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    Attempts(monkeypatch, BROKEN_ETCD, BROKEN_ETCD)
    with pytest.raises(ClusterError, match="etcd ended"):
        cluster.up(used)


def test_files_below_a_mount_are_never_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    precious = tmp_path / "kubelet" / "volume" / "precious"
    precious.parent.mkdir(parents=True)
    precious.write_text("data")
    monkeypatch.setattr(mounts, "mounts_below", lambda folder: [folder / "volume"])
    with pytest.raises(ClusterError, match="there are mounts below it"):
        cluster._delete([tmp_path / "kubelet"])
    assert precious.read_text() == "data"


def test_taking_down_a_missing_cluster_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a command was run"))
    cluster.take_down(Paths(tmp_path))


def _command(pid: int) -> str:
    """The program that a process runs; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


@pytest.mark.parametrize("when", ["while it is awaited", "before it is identified"])
def test_a_component_that_ends_once_is_restarted(tmp_path: Path, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "started once"
    script = f"test -e '{mark}' && exec sleep 60; touch '{mark}'; exit 1"
    component = Component("shaky", ("/bin/sh", "-c", script), ready=lambda: "" if alive() else "not running")
    supervisor, identify = Supervisor(tmp_path / "run", tmp_path / "logs"), processes.identify

    def identified_late(pid: int) -> Identity | None:
        if not mark.exists():
            os.waitpid(pid, 0)
        return identify(pid)

    def alive() -> bool:
        time.sleep(0.3)
        record = supervisor.record("shaky")
        return record is not None and _command(record.identity.pid) == "sleep"

    if when == "before it is identified":
        monkeypatch.setattr(processes, "identify", identified_late)
    try:
        cluster._start(supervisor, component)
        assert alive()
    finally:
        supervisor.stop("shaky")
