"""buildah with a store of its own below the cache folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devcluster.commands import run
from devcluster.mounts import unmount_below

ZSTD = ("--compression-format=zstd", "--compression-level=1")


@dataclass(frozen=True)
class Settings:
    """Inputs of a build.

    `arguments` are the ARGs of the Containerfile, `secrets` files that a step can read and no layer holds, by id, and
    `volumes` folders of the machine, by their path in the build.
    """

    arguments: Mapping[str, str]
    secrets: Mapping[str, Path]
    volumes: Mapping[Path, str]


@dataclass(frozen=True)
class Buildah:
    folder: Path

    @property
    def scratch(self) -> Path:
        """The folder for large temporary files."""
        return self.folder / "tmp"

    @property
    def argv(self) -> tuple[str, ...]:
        store, state = self.folder / "store", self.folder / "state"
        return ("buildah", "--root", str(store), "--runroot", str(state), "--storage-driver", "overlay")

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """Run buildah and return its output. Raises ClusterError with the end of the output."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        # chroot: needs no container runtime and works where namespaces are refused.
        environment = {"BUILDAH_ISOLATION": "chroot", "TMPDIR": str(self.scratch)}
        return run([*self.argv, *arguments], environment=environment, stdin=stdin)

    @contextmanager
    def session(self) -> Iterator[Buildah]:
        """Remove working containers, mounts and temporary files at the end, also those of a killed build."""
        try:
            yield self
        finally:
            self("rm", "--all")
            unmount_below(self.folder)
            shutil.rmtree(self.scratch)

    def has(self, image: str) -> bool:
        return image in self.images()

    def images(self) -> list[str]:
        """The names of all images in the store."""
        listed = json.loads(self("images", "--json") or "[]") or []
        return [name for image in listed for name in image.get("names") or []]

    def build_simple(self, image: str, containerfile: str, context: Path) -> None:
        """Build an image from the text of a Containerfile."""
        self("build", "--quiet", "--tag", image, "--file=-", str(context), stdin=containerfile)

    def build(self, image: str, context: Path, containerfile: Path, settings: Settings, *, target: str = "") -> None:
        """Build with the layer cache, which skips unchanged steps. `target` is the last stage to build."""
        self(
            *("build", "--quiet", "--layers", "--pull=false", "--tag", image, "--file", str(containerfile)),
            *(("--target", target) if target else ()),
            *(f"--build-arg={name}={value}" for name, value in settings.arguments.items()),
            *(f"--secret=id={name},src={path}" for name, path in settings.secrets.items()),
            *(f"--volume={path}:{place}" for path, place in settings.volumes.items()),
            str(context),
        )

    def push(self, image: str, *, local: bool) -> None:
        """Push the layers that the registry lacks. `local`: the registry speaks plain HTTP.

        zstd at its fastest level takes less time than writing plain layers to a disk, and halves their size.
        """
        verify = ("--tls-verify=false",) if local else ()
        self("push", "--quiet", *verify, *ZSTD, image, f"docker://{image}")

    def pull(self, image: str, *, local: bool) -> None:
        """Pull the layers that this store lacks."""
        verify = ("--tls-verify=false",) if local else ()
        self("pull", "--quiet", *verify, f"docker://{image}")

    def remove_other_tags(self, image: str) -> None:
        """Remove the other tags of an image. Layers that the image shares stay."""
        repository = image.rpartition(":")[0]
        for name in self.images():
            if name.rpartition(":")[0] == repository and name != image:
                self("rmi", name)
