"""Control planes of killed test runs are removed, and tests select the Kubernetes version."""

import dataclasses
import os
import socket
import tempfile
from pathlib import Path

import pytest

from devcluster import standalone
from devcluster.errors import ClusterError
from devcluster.paths import Paths
from devcluster.processes import Component, Identity, Record, Supervisor, identify, is_alive
from devcluster.standalone import PREFIX, free_ports, sweep, version_under_test


def start_one_process(parent: Path, owner: Identity) -> tuple[Path, Identity]:
    """Create a folder as a ControlPlane does, with one running process."""
    directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    Record(owner, "").write(directory / "owner")
    supervisor = Supervisor(directory / "run", directory / "logs")
    supervisor.start(Component(name="etcd", argv=("/bin/sleep", "60"), ready=lambda: ""))
    record = supervisor.record("etcd")
    assert record is not None
    return directory, record.identity


def test_only_control_planes_whose_owner_is_gone_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    alive = identify(os.getpid())
    assert alive is not None
    used, process_in_use = start_one_process(tmp_path, alive)
    orphaned, orphan = start_one_process(tmp_path, dataclasses.replace(alive, start=alive.start - 1))
    try:
        sweep()
        assert not orphaned.exists()
        assert not is_alive(orphan)
        assert used.exists()
        assert is_alive(process_in_use)
    finally:
        Supervisor(used / "run", used / "logs").stop("etcd")


def test_free_ports_differ_and_are_not_those_of_the_kernel() -> None:
    lowest, _ = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    ports = free_ports(8)
    assert len(set(ports)) == 8
    assert max(ports) < int(lowest)


def test_a_port_in_use_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        port = used.getsockname()[1]
        [free] = free_ports(1)
        monkeypatch.setattr(standalone, "PORTS", (port, free))
        assert free_ports(1) == [free]


def test_the_version_under_test_replaces_the_servers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bin" / "kubernetes-1.30.14"
    folder.mkdir(parents=True)
    for program in (folder / "kube-apiserver", tmp_path / "bin" / "kube-apiserver", tmp_path / "bin" / "kubectl"):
        program.touch()
    monkeypatch.setenv("TUNESMITH_TEST_KUBERNETES", "1.30.14")
    paths = version_under_test(Paths(tmp_path))
    assert paths.program("kube-apiserver") == str(folder / "kube-apiserver")
    assert paths.program("kubectl") == str(tmp_path / "bin" / "kubectl")


def test_a_version_that_is_not_built_is_refused_with_the_command_that_builds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESMITH_TEST_KUBERNETES", "1.30.14")
    with pytest.raises(ClusterError, match=r"python3 -m devcluster tools kubernetes-1\.30\.14"):
        version_under_test(Paths(tmp_path))
