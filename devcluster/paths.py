"""The folders of the development cluster."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """The folders below the cache folder.

    What takes long to make (programs, images in the registry) survives `down`; `cluster` does not.
    """

    cache: Path
    programs_first: str = ""
    """A folder below `bin` whose programs take precedence: the API server of another version, for example."""

    @property
    def bin(self) -> Path:
        """Programs built from source, kubectl and helm among them."""
        return self.cache / "bin"

    @property
    def debian(self) -> Path:
        """Unpacked Debian packages. Installed, they would start services on the machine."""
        return self.cache / "debian"

    @property
    def toolchain(self) -> Path:
        """The Go toolchain that is fetched if the machine's is missing or too old."""
        return self.cache / "go"

    @property
    def registry(self) -> Path:
        return self.cache / "registry"

    @property
    def images(self) -> Path:
        """References of the images of the last push."""
        return self.cache / "images.json"

    @property
    def cluster(self) -> Path:
        """All state of the running cluster; deleted by `down`."""
        return self.cache / "cluster"

    @property
    def pki(self) -> Path:
        return self.cluster / "pki"

    @property
    def run(self) -> Path:
        """Pid files and sockets."""
        return self.cluster / "run"

    @property
    def logs(self) -> Path:
        return self.cluster / "logs"

    @property
    def kubeconfig(self) -> Path:
        return self.cluster / "kubeconfig"

    @property
    def s3_credentials(self) -> Path:
        """Access key and secret key in the AWS shared credentials format."""
        return self.cluster / "s3-credentials"

    @property
    def containerd_socket(self) -> Path:
        return self.run / "containerd.sock"

    def search_path(self) -> str:
        """A PATH on which our programs come before the machine's."""
        ours = (self.bin, self.debian / "usr/bin", self.debian / "usr/sbin")
        system = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
        return ":".join((*map(str, ours), *system))

    def program(self, name: str) -> str:
        """The full path of a program of ours. The program need not exist yet."""
        candidates = (self.bin / self.programs_first / name, self.bin / name)
        return str(next(filter(os.path.lexists, candidates), self.debian / "usr/bin" / name))


def cache_paths() -> Paths:
    """The paths below $TUNESMITH_CACHE, or ~/.cache/tunesmith."""
    configured = os.environ.get("TUNESMITH_CACHE")
    return Paths(Path(configured).expanduser().resolve() if configured else Path.home() / ".cache" / "tunesmith")
