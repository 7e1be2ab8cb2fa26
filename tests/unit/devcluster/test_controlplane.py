"""What a killed test run left is removed; a control plane in use is not."""

import dataclasses
import os
import tempfile
from pathlib import Path

import pytest

from devcluster.controlplane import PREFIX, free_ports, sweep
from devcluster.processes import Component, Identity, Record, Supervisor, identify, is_alive


def left_behind(parent: Path, owner: Identity) -> tuple[Path, Identity]:
    """A folder as a ControlPlane makes it, with one process."""
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
    used, process_in_use = left_behind(tmp_path, alive)
    orphaned, orphan = left_behind(tmp_path, dataclasses.replace(alive, start=alive.start - 1))
    try:
        sweep()
        assert not orphaned.exists()
        assert not is_alive(orphan)
        assert used.exists()
        assert is_alive(process_in_use)
    finally:
        Supervisor(used / "run", used / "logs").stop("etcd")


def test_free_ports_are_different_ones() -> None:
    assert len(set(free_ports(8))) == 8
