"""The development cluster survives kills, a reboot and broken data, and is removed completely.

The trial runs in network, mount and cgroup namespaces of its own, so that the cluster in use is not touched.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster.builds import missing_programs
from devcluster.paths import cache_paths
from devcluster.toolchain import missing_unpacked

CGROUPS = Path("/sys/fs/cgroup")
SEPARATE = ("unshare", "--net", "--mount", "--cgroup", "--propagation", "private")

pytestmark = pytest.mark.deep


@pytest.fixture
def cgroups() -> Iterator[list[Path]]:
    """An empty cgroup in each hierarchy."""
    if (CGROUPS / "cgroup.controllers").exists():
        pytest.skip("the trial makes its separate cgroups in the way of cgroup v1, and this machine has v2")
    folders = [folder / f"tunesmith-trial-{os.getpid()}" for folder in CGROUPS.iterdir() if folder.is_dir()]
    for folder in folders:
        folder.mkdir()
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (folder / name).exists():
                (folder / name).write_text((folder.parent / name).read_text())
        if (folder / "cgroup.clone_children").exists():
            (folder / "cgroup.clone_children").write_text("1")
    yield folders
    for folder in folders:
        folder.rmdir()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache folder with the built programs, and without a cluster."""
    if missing_programs(cache_paths()) or missing_unpacked(cache_paths()):
        pytest.skip("with a cluster of the user's the programs of the embedded one need not be built")
    for name in ("bin", "debian"):
        (tmp_path / name).symlink_to(cache_paths().cache / name)
    return tmp_path


def test_a_cluster_is_repaired_after_a_kill_a_reboot_and_broken_data_and_removed_completely(
    cache: Path, cgroups: list[Path]
) -> None:
    def enter() -> None:
        for folder in cgroups:
            (folder / "cgroup.procs").write_text("0")

    environment = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
    trial = subprocess.run(
        [*SEPARATE, sys.executable, "-m", "tests.cluster.devcluster_trial"],
        preexec_fn=enter,
        env={**environment, "TUNESMITH_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert trial.returncode == 0, trial.stdout + trial.stderr
