"""Build the operator's and the runtime's image and push them, if the registry does not have them yet.

A tag is a hash of what the image is made of, so unchanged code builds and pushes nothing. What was pushed last is in
images.json below the cache folder: {"operator": "<registry>/tunesmith/operator:<tag>", "runtime": ...}.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from devcluster import toolchain
from devcluster.commands import run
from devcluster.errors import ClusterError
from devcluster.images_base import base_reference, ensure_base, ensure_uv, find_uv
from devcluster.images_buildah import Buildah, Settings
from devcluster.images_recipes import IMAGES, Image, content_tag, reference, source_files
from devcluster.paths import Paths
from devcluster.progress import step

ROOT = Path(__file__).resolve().parent.parent
MANIFEST_TYPES = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
CACHE_IN_BUILD = "/var/cache/uv-host"
FREE_GIGABYTES = 30
REGISTRY_SECONDS = 10


def build(paths: Paths, registry: str, root: Path = ROOT) -> dict[str, str]:
    """Build and push both images. Return their references once `registry` has them.

    Raises ClusterError if the registry does not answer, a source is missing, the disk is too small or a build fails.
    """
    base = base_reference()
    names = {image: _reference(registry, root, image, base) for image in IMAGES}
    missing = [image for image, name in names.items() if not is_pushed(name)]
    if missing:
        _ensure_tools()
        with _one_at_a_time(paths), Buildah(paths.cache / "buildah").session() as buildah:
            settings = _prepare(paths, buildah, base)
            for image in missing:
                _build_environment(buildah, root, image, settings)
                # Computed again, because the code may have been edited meanwhile.
                names[image] = _reference(registry, root, image, base)
                _build_and_push(buildah, root, image, names[image], settings)
    found = {image.name: name for image, name in names.items()}
    paths.cache.mkdir(parents=True, exist_ok=True)
    paths.images.write_text(json.dumps(found, indent=2) + "\n")
    return found


@contextmanager
def opened(paths: Paths, image: str) -> Iterator[Path]:
    """Yield the folder with the files of a pushed image, named in full.

    Raises ClusterError if neither this machine's store nor the registry has it.
    """
    _ensure_tools()
    with _one_at_a_time(paths), Buildah(paths.cache / "buildah").session() as buildah:
        if not buildah.has(image):
            buildah.pull(image, local=is_local(image))
        container = buildah("from", "--pull-never", image).strip()
        yield Path(buildah("mount", container).strip())


def _build_environment(buildah: Buildah, root: Path, image: Image, settings: Settings) -> None:
    """Build the dependencies: minutes the first time, a cache lookup later."""
    with step(f"install the dependencies of the {image.name} image"):
        buildah.build(_environment(image), root, root / image.containerfile, settings, target="env")


def _build_and_push(buildah: Buildah, root: Path, image: Image, name: str, settings: Settings) -> None:
    with step(f"build {name}"):
        buildah.build(name, root, root / image.containerfile, settings)
    with step(f"push {name}"):
        buildah.push(name, local=is_local(name))
    buildah.remove_other_tags(name)


def _environment(image: Image) -> str:
    return f"localhost/tunesmith/{image.name}-env:latest"


def _reference(registry: str, root: Path, image: Image, base: str) -> str:
    try:
        return reference(registry, image, content_tag(root, source_files(root, image), base))
    except FileNotFoundError as error:
        raise ClusterError(f"image {image.name}: {error} is not there; is the clone complete?") from None


def _ensure_tools() -> None:
    missing = [name for name in ("buildah", "mmdebstrap") if not shutil.which(name)]
    if missing:
        with step("get Debian packages " + " ".join(missing)):
            toolchain.refresh_package_lists()
            toolchain.install_packages(missing)


def room_for_images(paths: Paths) -> str:
    """The warning if the disk is too small for the first build; empty if it is not.

    The runtime's environment needs room once: its files, and two temporary copies while they become a layer.
    """
    existing = next(folder for folder in (paths.cache, *paths.cache.parents) if folder.exists())
    free = shutil.disk_usage(existing).free / 1e9
    if free >= FREE_GIGABYTES:
        return ""
    return (
        f"{existing} has {free:.0f} GB free, the first build of the images needs {FREE_GIGABYTES} GB: "
        "make room, or set TUNESMITH_CACHE to a folder on a larger disk"
    )


def _check_disk(paths: Paths, buildah: Buildah) -> None:
    sentence = room_for_images(paths)
    if sentence and not all(buildah.has(_environment(image)) for image in IMAGES):
        raise ClusterError(sentence)


def _prepare(paths: Paths, buildah: Buildah, base: str) -> Settings:
    """Prepare the two images that every build starts from. Return the settings of the builds."""
    _check_disk(paths, buildah)
    ensure_base(buildah, base)
    uv = find_uv(paths.cache)
    cache = Path(run([str(uv), "cache", "dir"]).strip())
    cache.mkdir(parents=True, exist_ok=True)
    arguments = {"BASE": base, "UV": ensure_uv(buildah, uv), "UV_CACHE_DIR": CACHE_IN_BUILD, "PACKAGES": ""}
    return Settings(arguments=arguments, secrets=build_secrets(os.environ), volumes={cache: CACHE_IN_BUILD})


def build_secrets(variables: Mapping[str, str]) -> dict[str, Path]:
    """Files of the machine that a build needs and the image must not hold: the CA bundle, and uv's configuration."""
    bundle = variables.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
    settings = variables.get("UV_CONFIG_FILE") or "~/.config/uv/uv.toml"
    candidates = {"ca": bundle, "uv": settings}
    paths = {name: Path(path).expanduser() for name, path in candidates.items() if path}
    return {name: path for name, path in paths.items() if path.is_file()}


def is_local(name: str) -> bool:
    """Whether the registry of the image is on this machine and speaks plain HTTP."""
    return name.split("/")[0].split(":")[0] in ("localhost", "127.0.0.1")


def is_pushed(name: str) -> bool:
    """Whether the registry has this tag. False for a registry that requires a login: a second push sends only what is
    missing."""
    repository, _, tag = name.partition("/")[2].rpartition(":")
    scheme = "http" if is_local(name) else "https"
    url = f"{scheme}://{name.partition('/')[0]}/v2/{repository}/manifests/{tag}"
    request = urllib.request.Request(url, method="HEAD", headers={"Accept": MANIFEST_TYPES})
    try:
        with urllib.request.urlopen(request, timeout=REGISTRY_SECONDS):
            return True
    except urllib.error.HTTPError as error:
        if error.code in (401, 403, 404):
            return False
        raise ClusterError(f"the registry answers {error.code} {error.reason} to {url}") from None
    except OSError as error:
        raise ClusterError(
            f"the registry {name.partition('/')[0]} does not answer ({error}); start ours with `make cluster`, "
            "or name yours in TUNESMITH_REGISTRY"
        ) from None


@contextmanager
def _one_at_a_time(paths: Paths) -> Iterator[None]:
    """Let a second build wait, and reuse the large layer of the first."""
    paths.cache.mkdir(parents=True, exist_ok=True)
    with (paths.cache / "images.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
