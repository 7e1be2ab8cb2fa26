"""Containers of our containerd: import the pause image, end all containers."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import signal
import tarfile
from functools import partial
from pathlib import Path

from devcluster.commands import run
from devcluster.components.node import PAUSE_IMAGE
from devcluster.errors import ClusterError
from devcluster.paths import Paths
from devcluster.processes import Identity, identify, kill, parent, wait_until

GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def import_pause_image(paths: Paths) -> None:
    """Import the pause image, which is a single static program, under the name that the kubelet uses."""
    archive = paths.run / "pause.tar"
    archive.write_bytes(image_archive(PAUSE_IMAGE, "pause", (paths.bin / "pause").read_bytes()))
    ctr = (paths.program("ctr"), "--address", str(paths.containerd_socket), "--namespace", "k8s.io")
    run([*ctr, "images", "import", str(archive)])
    archive.unlink()


def image_archive(name: str, program: str, content: bytes) -> bytes:
    """An image of a single program in the format of `docker save`, which `ctr images import` reads."""
    layer = _tar({program: (content, 0o755)})
    config = json.dumps(
        {
            "architecture": GO_ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Entrypoint": [f"/{program}"], "User": "65535:65535"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
    return _tar({"config.json": (config, 0o644), "layer.tar": (layer, 0o644), "manifest.json": (manifest, 0o644)})


def _tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def shims(socket: Path) -> list[Identity]:
    """The live shim processes of the containerd that listens on this socket; a shim holds the containers of a pod."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"containerd-shim" in arguments[0] and str(socket).encode() in arguments:
            identity = identify(int(folder.name))
            found += [identity] if identity else []
    return found


def end_containers(socket: Path) -> None:
    """Kill every container of ours, then the shims.

    Orphans of a container become children of its shim, so listing the shim's descendants repeatedly finds all of them.
    """
    for shim in shims(socket):
        gone = wait_until(partial(_kill_descendants, shim), 20.0)
        if not gone or not kill(shim, signal.SIGKILL, 10.0):
            raise ClusterError(f"the containers of process {shim.pid} ({socket}) do not end, not even after SIGKILL")


def _kill_descendants(root: Identity) -> bool:
    """Kill the descendants of a process. True once there are none."""
    found = _descendants(root)
    for process in found:
        kill(process, signal.SIGKILL, 0.0)
    return not found


def _descendants(root: Identity) -> list[Identity]:
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        above = parent(int(folder.name))
        if above is not None:
            children.setdefault(above, []).append(int(folder.name))
    found, pending = [], children.get(root.pid, [])
    while pending:
        pid = pending.pop()
        found.append(identify(pid))
        pending += children.get(pid, [])
    return [identity for identity in found if identity]
