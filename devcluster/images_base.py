"""The two images that the Containerfiles start from: a Debian with Python, and uv.

They are made from what the machine has, its own apt sources and its own uv, so that no public registry is needed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import tempfile
from pathlib import Path

from devcluster.commands import run
from devcluster.errors import ClusterError
from devcluster.images_buildah import Buildah
from devcluster.progress import step

PULLED_BASE = "TUNESMITH_BASE_IMAGE"
ORIGINS = {"debian": "Debian", "ubuntu": "Ubuntu"}
PACKAGES = "python3,ca-certificates"
UNUSED = ("/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*")
# The machine's mirrors and proxies are for the build; the image must not carry them.
FORGET_SOURCES = 'rm -f "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/* "$1"/etc/apt/apt.conf.d/99mmdebstrap'
FROM_ROOTFS = "FROM scratch\nADD rootfs.tar /\n"
FROM_UV = "FROM scratch\nCOPY uv /uv\n"


def base_reference() -> str:
    """The base image: the image in TUNESMITH_BASE_IMAGE, or ours, which is tagged by its recipe."""
    named = os.environ.get(PULLED_BASE)
    if named:
        return named
    recipe = hashlib.sha256(repr((_suite(), PACKAGES, UNUSED, FORGET_SOURCES)).encode()).hexdigest()
    return f"localhost/tunesmith/base:{recipe[:12]}"


def ensure_base(buildah: Buildah, base: str) -> None:
    """Build the base if it is ours and does not exist. The build pulls a base that the user has named."""
    if os.environ.get(PULLED_BASE) or buildah.has(base):
        return
    with step("make the base image"), tempfile.TemporaryDirectory(dir=buildah.scratch) as folder:
        make_rootfs(Path(folder) / "rootfs.tar")
        buildah.build_simple(base, FROM_ROOTFS, Path(folder))


def make_rootfs(target: Path) -> None:
    """A minimal system of the machine's own release, from the machine's own apt sources, as a tar file."""
    origin = ORIGINS.get(platform.freedesktop_os_release()["ID"])
    if origin is None or not shutil.which("apt-get"):
        raise ClusterError(f"only Debian and Ubuntu can build a base image; name an image to pull in {PULLED_BASE}")
    run(
        [
            *("mmdebstrap", "--variant=minbase", f"--include={PACKAGES}", "--keyring=/usr/share/keyrings"),
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in UNUSED),
            *(f"--aptopt={option}" for option in _apt_network_options()),
            f"--customize-hook={FORGET_SOURCES}",
            *(_suite(), str(target), "-"),
        ],
        stdin=apt_sources(origin),
        fix="check the machine's apt sources with `apt-get update`",
    )


def apt_sources(origin: str) -> str:
    """The distribution's own entries among the machine's apt sources in either format, as lines."""
    fields = "deb $(REPO_URI) $(RELEASE) $(COMPONENT)"
    text = run(["apt-get", "indextargets", "--format", fields, "Created-By: Packages", f"Origin: {origin}"])
    if not text.strip():
        raise ClusterError(f"apt has no sources of {origin}; run `apt-get update`")
    return "\n".join(dict.fromkeys(text.splitlines())) + "\n"


def _apt_network_options() -> list[str]:
    """apt options for the machine's proxies, certificates and date checks, which apt does not read with another root."""
    text = run(["apt-config", "dump", "--format", '%F "%v";%n', "Acquire"])
    wanted = ("Acquire::http::", "Acquire::https::", "Acquire::Check-")
    return [line for line in text.splitlines() if line.startswith(wanted) and not line.endswith(' "";')]


def _suite() -> str:
    return platform.freedesktop_os_release().get("VERSION_CODENAME", "unknown")


def ensure_uv(buildah: Buildah, uv: Path) -> str:
    """Build an image that holds uv in the machine's version. Return its reference."""
    version = run([str(uv), "--version"]).split()[1]
    image = f"localhost/tunesmith/uv:{version}"
    if not buildah.has(image):
        with tempfile.TemporaryDirectory(dir=buildah.scratch) as folder:
            shutil.copy2(uv, Path(folder) / "uv")
            buildah.build_simple(image, FROM_UV, Path(folder))
    return image


def find_uv(cache: Path) -> Path:
    """The path of uv in the cache folder, or of the machine's uv."""
    own = cache / "tools" / "bin" / "uv"
    found = str(own) if own.exists() else shutil.which("uv")
    if not found:
        raise ClusterError("uv is not installed; run `make env`")
    return Path(found)
