"""Run by test_devcluster.py in namespaces of its own, which make a machine without a cluster out of one that has one.

Brings a cluster up below $TUNESMITH_CACHE, harms it in several ways, and takes it down. An assertion that fails is the
exit code.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from devcluster import cluster, containers, mounts, network
from devcluster.commands import succeeds
from devcluster.components.node import PAUSE_IMAGE
from devcluster.paths import cache_paths
from devcluster.processes import Record, wait_until

PATHS = cache_paths()
SUPERVISOR = cluster.supervisor(PATHS)
POD_SECONDS = 90.0
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "idle"},
    "spec": {"containers": [{"name": "idle", "image": PAUSE_IMAGE, "imagePullPolicy": "Never"}]},
}


def make_separate() -> None:
    """Set up cgroups, folders of services and the loopback device as on a separate machine."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        controllers = line.split(":")[1]
        folder = Path("/sys/fs/cgroup") / (controllers.removeprefix("name=") or "unified")
        if folder.exists():
            command("umount", str(folder))
            command("mount", *mount_options(controllers), "cgroup", str(folder))
    for folder in (Path("/run"), Path("/var/lib"), Path("/var/log")):
        command("mount", "-t", "tmpfs", "tmpfs", str(folder))
    command("ip", "link", "set", "lo", "up")


def mount_options(controllers: str) -> tuple[str, ...]:
    """The folder of a hierarchy in /proc/self/cgroup, where the empty name is that of cgroup v2."""
    if not controllers:
        return ("-t", "cgroup2")
    return ("-t", "cgroup", "-o", f"none,{controllers}" if controllers.startswith("name=") else controllers)


def command(*argv: str) -> str:
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout


def devcluster(*arguments: str) -> list[str]:
    """Run a command and return its lines."""
    output = command(sys.executable, "-m", "devcluster", *arguments)
    print(output, end="", flush=True)
    return output.splitlines()


def traces() -> dict[str, object]:
    """Everything that a cluster could leave on the machine, except mounts."""
    rules = command("iptables-save") + command("ip6tables-save")
    settings = (*network.WANTED_SETTINGS, *network.CHANGED_SETTINGS)
    return {
        "links": command("ip", "-brief", "link"),
        "chains": [line for line in rules.splitlines() if line.startswith((":KUBE", ":CNI", "-A"))],
        "propagation": command("findmnt", "--noheadings", "--output", "PROPAGATION", "/"),
        "cgroups": [str(folder) for folder in Path("/sys/fs/cgroup").glob("*/kubepods")],
        "settings": {name: (Path("/proc/sys") / name).read_text() for name in settings},
        "folders": sorted(name for folder in ("/run", "/var/lib", "/var/log") for name in os.listdir(folder)),
        "processes": processes_of_ours(),
    }


def mount_points() -> set[Path]:
    return set(mounts.parse_mount_points(Path("/proc/self/mountinfo").read_text()))


def processes_of_ours() -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if str(PATHS.cache).encode() in arguments:
            found.append(arguments.replace(b"\0", b" ").decode())
    return found


def pod_runs(restarts: int) -> bool:
    pod = json.loads(cluster.kubectl(PATHS, "get", "pod", "idle", "--output=json"))
    statuses = pod["status"].get("containerStatuses", [])
    return any("running" in status["state"] and status["restartCount"] == restarts for status in statuses)


def make_pod() -> None:
    account = ("get", "serviceaccount", "default")
    wait_until(lambda: succeeds(kubectl(*account)), POD_SECONDS)
    cluster.kubectl(PATHS, "apply", "--filename=-", stdin=json.dumps(POD))
    assert wait_until(lambda: pod_runs(restarts=0), POD_SECONDS)


def kubectl(*arguments: str) -> list[str]:
    return [PATHS.program("kubectl"), f"--kubeconfig={PATHS.kubeconfig}", *arguments]


def kill(names: Iterable[str]) -> None:
    for name in names:
        record = SUPERVISOR.record(name)
        assert record is not None
        os.kill(record.identity.pid, signal.SIGKILL)
        assert wait_until(lambda name=name: SUPERVISOR.record(name) is None, 10.0)  # type: ignore[misc]


def started_again(lines: list[str]) -> list[str]:
    return [line.split()[1] for line in lines if line.startswith("start ") and " again " in line]


def cut_the_power() -> None:
    """Simulate a reboot: only the files remain. Pids are reused and the boot id is unchanged."""
    records = {path: Record.read(path) for path in SUPERVISOR.run.glob("*.pid")}
    kill(path.stem for path in records)
    containers.end_containers(PATHS.containerd_socket)
    mounts.unmount_below(PATHS.cluster)
    mounts.remove_pod_cgroups()
    network.restore(network.remember(PATHS.cluster / "before.json"))
    for path, record in records.items():
        assert record is not None
        earlier = dataclasses.replace(record.identity, pid=os.getpid(), boot="earlier")
        dataclasses.replace(record, identity=earlier).write(path)


def break_etcd() -> None:
    kill(["etcd"])
    for path in (PATHS.cluster / "etcd").rglob("*"):
        if path.is_file():
            path.write_bytes(b"broken")


def main() -> None:
    make_separate()
    before, mounted_before = traces(), mount_points()
    devcluster("up")
    make_pod()
    assert traces() != before

    assert not any(line.startswith("start ") for line in devcluster("up")), "a healthy cluster is not touched"

    kill(["etcd", "containerd", "coredns"])
    assert started_again(devcluster("up")) == ["etcd", "coredns", "containerd"], "just what died is started again"
    assert wait_until(lambda: pod_runs(restarts=0), POD_SECONDS), "the pod has noticed nothing"

    cut_the_power()
    assert len(started_again(devcluster("up"))) == 10
    assert wait_until(lambda: pod_runs(restarts=1), POD_SECONDS), "the pod runs again"

    bucket = PATHS.cluster / "s3" / "bucket"
    bucket.mkdir()
    break_etcd()
    assert any("rebuilt" in line for line in devcluster("up"))
    assert bucket.exists(), "a rebuild keeps the buckets"
    make_pod()

    devcluster("down")
    left = {name: (before[name], now) for name, now in traces().items() if now != before[name]}
    assert not left, f"down leaves nothing behind, but (before, now): {left}"
    # Mounts of the cluster in use were copied into this namespace, and disappear when its pods end.
    assert mount_points() <= mounted_before
    assert not PATHS.cluster.exists()
    devcluster("down")


if __name__ == "__main__":
    main()
