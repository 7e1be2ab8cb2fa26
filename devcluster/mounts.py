"""Mounts and cgroups that containers leave behind."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from devcluster.commands import run
from devcluster.errors import ClusterError
from devcluster.processes import wait_until

CGROUPS = Path("/sys/fs/cgroup")
LEAVING_SECONDS = 10.0


def parse_mount_points(text: str) -> list[Path]:
    """The mount points in the text of /proc/self/mountinfo, where a blank in a path is written \\040."""
    points = (line.split(" ")[4] for line in text.splitlines() if line)
    return [Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), point)) for point in points]


def mounts_below(folder: Path) -> list[Path]:
    """Mount points in a folder, the latest first: a mount that covers another must be unmounted before it."""
    points = parse_mount_points(Path("/proc/self/mountinfo").read_text())
    return [point for point in reversed(points) if folder in point.parents]


def unmount_below(folder: Path) -> None:
    while points := mounts_below(folder):
        for point in points:
            run(["umount", "--lazy", str(point)])


def remove_pod_cgroups() -> None:
    """Remove the kubelet's cgroups in every hierarchy (v1 has one per controller).

    Only empty cgroups can be removed, and a killed process takes a moment to leave its cgroup.
    """
    if not wait_until(_pod_cgroups_can_go, LEAVING_SECONDS):
        held = {folder: (folder / "cgroup.procs").read_text().split() for folder in _pod_cgroups()}
        raise ClusterError(f"the pods' cgroups can't be removed; the processes in them: {held}")


def _pod_cgroups_can_go() -> bool:
    for folder in sorted(_pod_cgroups(), reverse=True):  # children before their parents
        with suppress(OSError):
            folder.rmdir()
    return not _pod_cgroups()


def _pod_cgroups() -> list[Path]:
    roots = [*CGROUPS.glob("kubepods"), *CGROUPS.glob("*/kubepods")]
    return [folder for root in roots for folder in (root, *root.rglob("*/"))]
