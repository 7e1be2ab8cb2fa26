"""Mounts and cgroups that containers leave behind."""

from __future__ import annotations

import re
from pathlib import Path

from devcluster.commands import run

CGROUPS = Path("/sys/fs/cgroup")


def parse_mount_points(text: str) -> list[Path]:
    """The mount points in the text of /proc/self/mountinfo, where a blank in a path is written \\040."""
    points = (line.split(" ")[4] for line in text.splitlines() if line)
    return [Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), point)) for point in points]


def mounts_below(folder: Path) -> list[Path]:
    """Latest first, so that what covers another mount goes before it."""
    points = parse_mount_points(Path("/proc/self/mountinfo").read_text())
    return [point for point in reversed(points) if folder in point.parents]


def unmount_below(folder: Path) -> None:
    while points := mounts_below(folder):
        for point in points:
            run(["umount", "--lazy", str(point)])


def remove_pod_cgroups() -> None:
    """Remove the kubelet's cgroups in every hierarchy (v1 has one per controller). Only empty ones can go."""
    roots = [*CGROUPS.glob("kubepods"), *CGROUPS.glob("*/kubepods")]
    for root in roots:
        for folder in sorted(root.rglob("*/"), reverse=True):
            folder.rmdir()
        root.rmdir()
