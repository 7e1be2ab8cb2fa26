"""Preconditions of the cluster. Each check returns messages with the fault and the fix."""

from __future__ import annotations

import ipaddress
import os
import platform
import re
import shutil
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from devcluster.components import addresses
from devcluster.paths import Paths
from devcluster.processes import Component

GIB = 1 << 30
BUILD_DISK = 12 * GIB
RUN_DISK = 4 * GIB
CONTROLLERS = ("cpu", "memory", "pids")


@dataclass(frozen=True)
class Listener:
    """A listening TCP socket, and the process that holds it, if that is visible."""

    address: str
    port: int
    pid: int
    command: str


def check_machine(system: str, machine: str, user: int) -> list[str]:
    """Check operating system, architecture and user, which everything else depends on."""
    found = []
    if system != "Linux" or machine not in ("x86_64", "aarch64"):
        found.append(
            f"this is {system} on {machine}, and the cluster needs Linux on x86_64 or aarch64: "
            "use a virtual machine, or name a cluster with KUBECONFIG"
        )
    if user != 0:
        found.append(
            f"you are user {user}, and containers, mounts and a bridge need root: "
            "run the same command with sudo -E, or name a cluster with KUBECONFIG"
        )
    return found


def check_tools(apt_get: str | None, missing: list[str]) -> list[str]:
    """Check for apt-get, which is needed only if something is missing."""
    if apt_get or not missing:
        return []
    return [f"apt-get is not there, and {', '.join(missing)} must come from Debian: use Debian 12 or newer, or Ubuntu"]


def check_kernel(filesystems: str, cgroup_controllers: Iterable[str]) -> list[str]:
    found = []
    if "overlay" not in filesystems.split():
        found.append("the kernel has no overlay file system, which containers need: run `modprobe overlay`")
    absent = [name for name in CONTROLLERS if name not in cgroup_controllers]
    if absent:
        found.append(f"the cgroup controllers {', '.join(absent)} are not there: mount them below /sys/fs/cgroup")
    return found


def check_disk(folder: Path, free: int, needed: int) -> list[str]:
    if free >= needed:
        return []
    sentence = f"{folder} has {free / GIB:.1f} GB free, and {needed / GIB:.0f} GB are needed: "
    return [sentence + "make room, or set TUNESMITH_CACHE to a folder on a larger disk"]


def check_ports(components: list[Component], listeners: list[Listener], own: set[int]) -> list[str]:
    """Check that the ports are free. `own` are our processes, which may hold their ports."""
    return [
        f"port {port} of {address}, which {component.name} needs, is taken by process {listener.pid} "
        f"({listener.command}): stop it, or name its cluster with KUBECONFIG"
        for component in components
        for address, port in component.ports
        for listener in listeners
        if listener.port == port and listener.address in (address, "0.0.0.0", "::") and listener.pid not in own
    ]


def check_routes(routes: list[tuple[str, str]]) -> list[str]:
    """Check for overlapping networks. `routes`: (network, device) of the routing table, without the default route."""
    return [
        f"the network {network} of {device} overlaps {ours}, which the cluster needs for pods and Services: "
        f"take {device} away, or name a cluster with KUBECONFIG"
        for network, device in routes
        for ours in (addresses.POD_NETWORK, addresses.SERVICE_NETWORK)
        if device != addresses.BRIDGE and ipaddress.ip_network(network).overlaps(ipaddress.ip_network(ours))
    ]


def check(paths: Paths, components: list[Component], own: set[int], missing: list[str]) -> list[str]:
    """All checks that need no network. `missing` are the packages and programs to install or build."""
    found = check_machine(platform.system(), platform.machine(), os.geteuid())
    if found:
        return found
    existing = next(folder for folder in (paths.cache, *paths.cache.parents) if folder.exists())
    return [
        *check_tools(shutil.which("apt-get"), missing),
        *check_kernel(Path("/proc/filesystems").read_text(), cgroup_controllers()),
        *check_disk(existing, shutil.disk_usage(existing).free, BUILD_DISK if missing else RUN_DISK),
        *check_ports(components, tcp_listeners(), own),
        *check_routes(routes(Path("/proc/net/route").read_text())),
    ]


def cgroup_controllers() -> list[str]:
    """Of cgroup v2, and of the v1 hierarchies beside it."""
    unified = Path("/sys/fs/cgroup/cgroup.controllers")
    legacy = [name for folder in Path("/sys/fs/cgroup").glob("*/") for name in folder.name.split(",")]
    return [*(unified.read_text().split() if unified.exists() else []), *legacy]


def routes(table: str) -> list[tuple[str, str]]:
    """(network, device) of each line of /proc/net/route except the default route."""
    found = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        network, mask = (ipaddress.ip_address(struct.pack("<I", int(fields[index], 16))) for index in (1, 7))
        if int(mask):
            found.append((str(ipaddress.ip_network(f"{network}/{mask}", strict=False)), fields[0]))
    return found


def parse_listeners(table: str) -> list[tuple[str, int, str]]:
    """(address, port, inode) of the listening sockets in the text of /proc/net/tcp or tcp6."""
    found = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        if fields[3] != "0A":
            continue
        address, port = fields[1].split(":")
        found.append((_address(address), int(port, 16), fields[9]))
    return found


def _address(text: str) -> str:
    """The kernel prints addresses as 32-bit words in the machine's byte order."""
    packed = b"".join(struct.pack("=I", int(text[start : start + 8], 16)) for start in range(0, len(text), 8))
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def tcp_listeners() -> list[Listener]:
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    sockets = [entry for table in tables if table.exists() for entry in parse_listeners(table.read_text())]
    holders = _socket_holders()
    return [Listener(address, port, *holders.get(inode, (0, "unknown"))) for address, port, inode in sockets]


def _socket_holders() -> dict[str, tuple[int, str]]:
    """Socket inode → (pid, command)."""
    holders = {}
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            match = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(descriptor))
            if match:
                pid = int(descriptor.parts[2])
                holders[match[1]] = (pid, Path(f"/proc/{pid}/comm").read_text().strip())
        except OSError:
            continue  # the process has ended meanwhile
    return holders
