"""buildah with a store of its own below the cache folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devcluster.commands import run, succeeds


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
        """Afterwards no working container and no mount is left."""
        try:
            yield self
        finally:
            self("rm", "--all")
            overlay = self.folder / "store" / "overlay"
            if os.path.ismount(overlay) or succeeds(["mountpoint", "--quiet", str(overlay)]):
                run(["umount", str(overlay)])

    def has(self, image: str) -> bool:
        return image in self.images()

    def images(self) -> list[str]:
        """The names of all images in the store."""
        listed = json.loads(self("images", "--json") or "[]") or []
        return [name for image in listed for name in image.get("names") or []]

    def build_simple(self, image: str, containerfile: str, context: Path) -> None:
        """An image from a Containerfile given as text."""
        self("build", "--quiet", "--tag", image, "--file=-", str(context), stdin=containerfile)

    def build(
        self,
        image: str,
        containerfile: Path,
        context: Path,
        *,
        arguments: Mapping[str, str],
        secrets: Mapping[str, Path],
        volumes: Mapping[Path, str],
    ) -> None:
        """Build with the layer cache: a step whose instruction and input are unchanged is not run again."""
        self(
            *("build", "--quiet", "--layers", "--pull=false", "--tag", image, "--file", str(containerfile)),
            *(f"--build-arg={name}={value}" for name, value in arguments.items()),
            *(f"--secret=id={name},src={path}" for name, path in secrets.items()),
            *(f"--volume={path}:{target}" for path, target in volumes.items()),
            str(context),
        )

    def push(self, image: str, reference: str, *, local: bool) -> None:
        """Layers that the registry has are not sent again. zstd's fastest level: quicker than writing uncompressed
        layers to the disk, and half their size."""
        options = ("--tls-verify=false",) if local else ()
        compression = ("--compression-format=zstd", "--compression-level=1")
        self("push", "--quiet", *options, *compression, image, f"docker://{reference}")
