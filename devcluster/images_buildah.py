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
    """What a build is given from outside. `arguments`: the Containerfile's ARGs. `secrets`: files that a step can read
    and no layer holds, by id. `volumes`: folders of the machine, by their place in the build."""

    arguments: Mapping[str, str]
    secrets: Mapping[str, Path]
    volumes: Mapping[Path, str]


@dataclass(frozen=True)
class Buildah:
    folder: Path

    @property
    def scratch(self) -> Path:
        """Where buildah and we put large temporary files."""
        return self.folder / "tmp"

    @property
    def argv(self) -> tuple[str, ...]:
        store, state = self.folder / "store", self.folder / "state"
        return ("buildah", "--root", str(store), "--runroot", str(state), "--storage-driver", "overlay")

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """What buildah prints. Raises ClusterError with the end of it."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        # chroot: needs no container runtime and works where namespaces are refused.
        environment = {"BUILDAH_ISOLATION": "chroot", "TMPDIR": str(self.scratch)}
        return run([*self.argv, *arguments], environment=environment, stdin=stdin)

    @contextmanager
    def session(self) -> Iterator[Buildah]:
        """Afterwards no working container, no mount and no temporary file is left, nor one of a killed build."""
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
        """An image from a Containerfile given as text."""
        self("build", "--quiet", "--tag", image, "--file=-", str(context), stdin=containerfile)

    def build(self, image: str, context: Path, containerfile: Path, settings: Settings, *, target: str = "") -> None:
        """Build with the layer cache: a step whose instruction and input are unchanged is not run again. `target`: the
        stage to stop after."""
        self(
            *("build", "--quiet", "--layers", "--pull=false", "--tag", image, "--file", str(containerfile)),
            *(("--target", target) if target else ()),
            *(f"--build-arg={name}={value}" for name, value in settings.arguments.items()),
            *(f"--secret=id={name},src={path}" for name, path in settings.secrets.items()),
            *(f"--volume={path}:{place}" for path, place in settings.volumes.items()),
            str(context),
        )

    def push(self, image: str, *, local: bool) -> None:
        """Send what the registry has not. zstd at its fastest takes less time than writing plain layers to a disk,
        and half the room. `local`: the registry speaks plain HTTP."""
        verify = ("--tls-verify=false",) if local else ()
        self("push", "--quiet", *verify, *ZSTD, image, f"docker://{image}")

    def pull(self, image: str, *, local: bool) -> None:
        """Get what a registry has and this store has not."""
        verify = ("--tls-verify=false",) if local else ()
        self("pull", "--quiet", *verify, f"docker://{image}")

    def remove_other_tags(self, image: str) -> None:
        """Drop what earlier builds of this image left; the layers that this one is made of stay."""
        repository = image.rpartition(":")[0]
        for name in self.images():
            if name.rpartition(":")[0] == repository and name != image:
                self("rmi", name)
